"""params.yaml: every stage reads and checks the whole file.

No key has a default: the file states every value that is used, and DVC tracks all of them. The keys are those
of the parameter models of the stages in `pipeline.graph`.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent, Event
from ruamel.yaml.nodes import Node

from pipeline.datasets import READERS
from pipeline.errors import MacError, first_line, quoted
from pipeline.graph import STAGES, stage
from pipeline.method.kinds import AS_GIVEN
from pipeline.method.pixels import core_pixels
from pipeline.params.block import Block
from pipeline.params.cores import CoreParams
from pipeline.params.inputs import misfit
from pipeline.params.maps import MapParams
from pipeline.params.model import ModelParams, contradiction
from pipeline.params.study import OF_RUN, SEEDS, StudyParams, put
from pipeline.params.tracking import TrackingParams
from pipeline.params.train import TrainParams
from pipeline.store.files import regular

T = TypeVar("T", bound=Block)

# More than any file of parameters has.
LARGEST = 100_000  # bytes
MOST_VALUES = 10_000
DEEPEST = 20


@cache
def blocks() -> dict[str, type[Block]]:
    """The blocks of params.yaml in their order, each as one model with all its keys."""
    models: dict[str, dict[type[Block], None]] = {}
    for each in STAGES:
        for model in each.models():
            models.setdefault(model.block, {})[model] = None
    models[TrackingParams.block] = {TrackingParams: None}  # no stage has it
    return {block: create_model(block, __base__=_most_derived(found)) for block, found in models.items()}


def _most_derived(models: Mapping[type[Block], None]) -> tuple[type[Block], ...]:
    """The models that no other model is derived from."""
    derived = []
    for model in models:
        if not any(other is not model and issubclass(other, model) for other in models):
            derived.append(model)
    return tuple(derived)


@dataclass(frozen=True)
class Params:
    """All of params.yaml, checked.

    Attributes:
        values: plain values by block and key.
    """

    values: Mapping[str, Mapping[str, Any]]

    def of(self, model: type[T]) -> T:
        """The keys of one model."""
        block = self.values[model.block]
        return model.model_validate({key: block[key] for key in model.model_fields})


def load(path: Path) -> Params:
    """Read and check params.yaml (YAML 1.2, as DVC reads it).

    Raises:
        MacError: one line naming the file and the dotted key.
    """
    return parse(_read(path), str(path))


def _read(path: Path) -> Any:
    try:
        with regular(path) as file:
            contents = file.read(LARGEST + 1)
    except OSError as error:
        raise MacError(f"{path}: cannot be read ({first_line(error)})") from None
    if len(contents) > LARGEST:
        raise MacError(f"{path}: has more than {LARGEST} bytes, so it is no file of parameters")
    try:
        text = contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MacError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from None
    return from_yaml(text, str(path))


def from_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; `where` starts the error line.

    A short text can stand for a huge value: aliases of aliases, or thousands of brackets. This is refused
    before the value is built.

    Raises:
        MacError: it is not YAML, or too large or nested too deeply.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        _check_depth(yaml.parse(text), where)
        _check_size(yaml.compose(text), where)
        return yaml.load(text)
    except YAMLError as error:
        raise MacError(f"{where}: is not YAML ({' '.join(str(error).split())})") from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # a tag or a form that promises another value than it has, such as 2020-99-99 or !!int x
        raise MacError(f"{where}: holds a value that cannot be read ({first_line(error)})") from None


def _check_depth(events: Iterable[Event], where: str) -> None:
    depth = 0
    for event in events:
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > DEEPEST:
            raise MacError(f"{where}: is nested too deeply; parameters need {DEEPEST} levels at most")


def _check_size(whole: Node | None, where: str) -> None:
    """Check how many values there are, each as often as an alias repeats it."""
    count, left = 0, [whole]
    while left:
        count += 1
        if count > MOST_VALUES:
            raise MacError(f"{where}: is more than {MOST_VALUES} values, aliases counted; no parameters are")
        inner = getattr(left.pop(), "value", None)
        for each in inner if isinstance(inner, list) else ():
            left.extend(each if isinstance(each, tuple) else (each,))


def parse(values: Any, where: str) -> Params:
    """Check values already read, and with them those of every variant of the study.

    Args:
        where: starts the error line.

    Raises:
        MacError: one line naming the dotted key.
    """
    params = _parsed(values, where)
    for name, changes in params.values["study"]["variants"].items():
        if changes:
            _parsed(_changed(values, changes, _variant(where, name)), _variant(where, name))
            _require_read(changes, _variant(where, name))
    return params


def of_run(path: Path, variant: str, seed: int) -> Params:
    """The parameters of one run of the study; it is the only one that they name.

    Args:
        path: params.yaml.

    Raises:
        MacError: as `load`, or the study has no such run.
    """
    values, where = _read(path), str(path)
    study = parse(values, where).of(StudyParams)
    if variant not in study.variants:
        raise MacError(f"{where}: study.variants: has no {quoted(variant)}, but {', '.join(study.variants)}")
    if seed not in study.seeds:
        raise MacError(f"{where}: study.seeds: has no {seed}, but {', '.join(map(str, study.seeds))}")
    changes = study.variants[variant]
    changed = _changed(values, changes, _variant(where, variant))
    for key in OF_RUN:
        put(changed, key, seed if key in SEEDS else 0)
    changed["study"] |= {"seeds": [seed], "variants": {variant: changes}}
    return _parsed(changed, _variant(where, variant))


def _variant(where: str, name: str) -> str:
    return f"{where}: study.variants.{name}"


def _changed(values: Any, changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A copy of the values with changes, by dotted keys.

    Raises:
        MacError: a key is none that a variant can change.
    """
    changed: dict[str, Any] = deepcopy(values)
    for dotted, value in changes.items():
        block, dot, _ = dotted.partition(".")
        if not dot or block == StudyParams.block:
            raise MacError(f"{where}: {dotted}: should be a key of a block, such as saliency.top_k")
        if dotted in SEEDS:
            raise MacError(f"{where}: {dotted}: is the seed of the run, one of study.seeds")
        try:
            put(changed, dotted, value)
        except KeyError as error:
            raise MacError(f"{where}: {dotted}: there is no block {error.args[0]}") from None
    return changed


def _require_read(changes: Mapping[str, Any], where: str) -> None:
    """Refuse a variant that changes what no run of the study reads: it would be the same without.

    Raises:
        MacError: names the key.
    """
    read = {*stage("prepare").keys, *stage("study-run").keys}.difference(OF_RUN)
    for dotted in changes:
        if ".".join(dotted.split(".")[:2]) not in read:
            raise MacError(
                f"{where}: {dotted}: no stage of the study reads it, so nothing would be different"
            )


def _parsed(values: Any, where: str) -> Params:
    fields: dict[str, Any] = {name: (model, ...) for name, model in blocks().items()}
    whole = create_model("params", __base__=Block, **fields)
    checked = _checked(whole, values, where, ()).model_dump()
    dataset = checked["dataset"]
    if dataset["name"] not in READERS:
        names = ", ".join(READERS)
        raise MacError(f"{where}: dataset.name: should be one of {names}, found {quoted(dataset['name'])}")
    _checked(READERS[dataset["name"]].Options, dataset["options"], where, ("dataset", "options"))
    if wrong := misfit(dataset["input_size"], dataset["to_input"], dataset["stored_size"]):
        raise MacError(f"{where}: {wrong}")
    params = Params(checked)
    if wrong := contradiction(params.of(ModelParams), params.of(TrainParams)):
        raise MacError(f"{where}: {wrong}")
    if params.of(MapParams).method not in AS_GIVEN:
        try:
            core_pixels(params.of(CoreParams), dataset["input_size"])
        except MacError as error:
            raise MacError(f"{where}: {error}") from None
    return params


def _checked(model: type[T], values: Any, where: str, prefix: tuple[str, ...]) -> T:
    try:
        return model.model_validate(values, context={"as_written": True})
    except ValidationError as error:
        first, *others = error.errors()
        names = [str(name) for name in (*prefix, *first["loc"]) if name != "function-after"]
        key = ".".join(names) or "top level"
        is_told = first["type"] == "missing" or isinstance(first["input"], dict)
        found = "" if is_told else f", found {quoted(first['input'])}"
        reason = {"missing": "this key is missing", "extra_forbidden": "unknown key"}.get(
            first["type"], first["msg"]
        )
        more = f" (and {len(others)} more)" if others else ""
        raise MacError(f"{where}: {key}: {reason}{found}{more}") from None
