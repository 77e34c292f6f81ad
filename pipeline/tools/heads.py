"""The fitted heads of a project by name: ERM's, MaC's, and those of the other methods in data/baselines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pipeline.errors import MacError
from pipeline.params.baselines import MethodName
from pipeline.project import Opened
from pipeline.results.choice import Choice
from pipeline.store import FittedHeads

ERM, MAC = "erm", "mac"
BASELINES: tuple[str, ...] = get_args(MethodName)  # the methods that stage baselines can fit
# The heads that can be compared with ERM's: MaC's, and those that stage baselines can fit.
OTHERS = (MAC, *(name for name in BASELINES if name != ERM))
NAMES = (ERM, *OTHERS)


@dataclass(frozen=True)
class NamedHead:
    """A head for ERM's trunk, and its description.

    Attributes:
        name: one of NAMES.
        title: the name to show, such as `MaC`.
        source: who published the method.
        labels: the group labels that the method sees.
        chosen: the chosen settings of this head's fit, by name; none if it is ERM's head as it is.
        note: a remark; often empty. For MaC, why its settings were chosen.
        head: the head itself (S = 1). If there are several, the one that validation prefers.
        count: how many heads the method fitted, one for each seed.
        digest: the digest of the file with its tensors.
    """

    name: str
    title: str
    source: str
    labels: str
    chosen: Mapping[str, Any]
    note: str
    head: FittedHeads
    count: int
    digest: str


def artefact_of(name: str) -> str:
    """The artefact that has the head of this name.

    Raises:
        MacError: no method has this name.
    """
    if name not in NAMES:
        raise MacError(f"{name}: no method has this name; there are {', '.join(NAMES)}")
    return {ERM: "erm", MAC: "retrained"}.get(name, "baselines")


def named_head(given: Opened, name: str) -> NamedHead:
    """The head of one method.

    Args:
        given: the artefact `artefact_of(name)`.
        name: one of NAMES.

    Raises:
        MacError: no method has this name, it was not fitted, or its artefact is damaged.
    """
    artefact = artefact_of(name)
    folder = given.model(artefact)
    if name == ERM:
        return NamedHead(
            name=ERM,
            title="ERM",
            source="the head as trained",
            labels=given.erm_labels,
            chosen={},
            note="",
            head=folder.head(),
            count=1,
            digest=folder.digest,
        )
    if name == MAC:
        choice = Choice.of_retrained(given)
        return NamedHead(
            name=MAC,
            title="MaC",
            source="Hosseini Noohdani et al.",
            labels=given.stated(artefact, "labels"),
            chosen=choice.numbers,
            note=choice.reason,
            head=folder.head(),
            count=len(folder.heads()),
            digest=folder.digest,
        )
    return _baseline(given, name)


def _require_fitted(given: Opened, name: str, metrics: Mapping[str, Any]) -> None:
    """If a method was not fitted, raise an error that says why."""
    folder, remedy = given.model("baselines").path, given.project.kinds["baselines"].remedy
    methods, left_out = metrics["methods"], metrics["left_out"]
    if name in left_out:
        raise MacError(f"{folder}: {name} was not fitted: {left_out[name]['reason']}")
    if name not in methods:
        raise MacError(
            f"{folder}: {name} was not fitted, only {', '.join(methods)}; "
            f"add it to baselines.methods and {remedy}"
        )


def _baseline(given: Opened, name: str) -> NamedHead:
    """The head of a method that stage baselines fitted."""
    folder = given.model("baselines")
    metrics, tensors = given.metrics("baselines"), folder.read()
    _require_fitted(given, name, metrics)
    about = metrics["methods"][name]
    heads, number = FittedHeads.of(tensors, name), about["head_seed"]
    return NamedHead(
        name=name,
        title=about["title"],
        source=about["source"],
        labels=about["labels"],
        chosen=_of_head(about["chosen"], number),
        note=about["note"],
        head=heads[number],
        count=len(heads),
        digest=folder.digest,
    )


def _of_head(chosen: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The settings chosen for one head. A list has one value for each head."""
    return {
        key: value[number] if isinstance(value, list) and value else value for key, value in chosen.items()
    }
