"""The fitted heads of a project by name: ERM's, MaC's, and those of the other methods in data/baselines."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pipeline import store
from pipeline.errors import MacError
from pipeline.params.baselines import MethodName
from pipeline.project import Opened
from pipeline.store import FittedHeads

ERM, MAC = "erm", "mac"
# What can stand beside ERM: MaC, and what stage baselines can fit.
OTHERS = (MAC, *(name for name in get_args(MethodName) if name != ERM))
NAMES = (ERM, *OTHERS)


@dataclass(frozen=True)
class NamedHead:
    """A head on ERM's trunk, and what is to be said of it.

    Attributes:
        name: what it is asked for by, one of NAMES.
        title: what it is called, such as `MaC`.
        source: where the method is from.
        labels: the group labels that the method sees.
        chosen: the settings of this head's fit that were chosen, by name.
        note: what else a reader should know; often empty.
        head: the head itself, S = 1. Of several it is the one that validation prefers.
        count: how many heads the method fitted, one for each seed.
        digest: of the file with its tensors.
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
    """The artefact that the head of this name is in.

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
        MacError: no method has this name, or it was not fitted.
    """
    artefact = artefact_of(name)
    folder = given.model(artefact)
    if name == ERM:
        select = folder.provenance.params["train"]["select"]
        return NamedHead(
            name=ERM,
            title="ERM",
            source="the head as trained",
            labels="validation, to choose" if select == "best" else "none",
            chosen={},
            note="",
            head=folder.head(),
            count=1,
            digest=folder.digest,
        )
    if name == MAC:
        params = folder.provenance.params
        return NamedHead(
            name=MAC,
            title="MaC",
            source="Hosseini Noohdani et al.",
            labels="validation, to choose",
            chosen={"alpha": params["alpha"], "beta": params["beta"]},
            note="",
            head=folder.head(),
            count=len(folder.heads()),
            digest=folder.digest,
        )
    return _baseline(given, name)


def _baseline(given: Opened, name: str) -> NamedHead:
    """The head of a method that stage baselines fitted."""
    folder, remedy = given.model("baselines"), given.project.kinds["baselines"].remedy
    file = folder.path / "metrics.json"
    methods = store.read_json(file, remedy).get("methods", {})
    tensors = folder.read()
    if name not in methods or f"{name}.weight" not in tensors:
        raise MacError(
            f"{folder.path}: {name} was not fitted, only {', '.join(methods)}; "
            f"add it to baselines.methods and {remedy}"
        )
    about = methods[name]
    heads = FittedHeads(tensors[f"{name}.weight"], tensors[f"{name}.bias"])
    try:
        number = int(about["head_seed"])
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
    except (LookupError, TypeError, ValueError) as error:
        raise MacError(f"{file}: damaged ({type(error).__name__}: {error}); {remedy}") from None


def _of_head(chosen: Mapping[str, Any], number: int) -> dict[str, Any]:
    """What was chosen for one head: a list has one value for each head."""
    return {key: value[number] if isinstance(value, list) else value for key, value in chosen.items()}
