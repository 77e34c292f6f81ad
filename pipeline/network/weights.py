"""Weights from a file, in whichever way a program has wrapped them.

A file holds one or more state dicts, in dictionaries within one another, beside much else. A network's
tensors are found by its names: whatever comes before them, such as `module.`, is cut off.
"""

import re
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.compute.progress import log
from pipeline.errors import MacError, first_line
from pipeline.store import file_digest, regular

State = Mapping[str, object]

_TORCH = (b"PK", b"\x80")  # how files of torch.save begin: a zip archive, or a pickle
# How files begin that are often saved in place of weights, and what they are.
_NO_WEIGHTS = {
    b"<!doctype": "a web page; download the file itself",
    b"<html": "a web page; download the file itself",
    b"<?xml": "a web page; download the file itself",
    b"version https://git-lfs": "a pointer of Git LFS, not the file; run 'git lfs pull'",
    b"{": "JSON text; download the file itself",
    b"../": "the text of a link, which could not be made here; copy the file that it names",
}
_OBJECTS = "Python objects, such as a whole model, which may run any code; save a state_dict() alone"
# torchvision's published DenseNets have names of an earlier version: `norm.1` is `norm1`.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=\d\.)")
# Tensors beside the weights: counts of BatchNorm and of thop, which earlier versions of a library saved, or
# which only pretraining uses.
_BOOKKEEPING = frozenset({"num_batches_tracked", "total_ops", "total_params", "attn_mask", "mask_token"})
_MOST_NAMED = 3  # names in a message


def weights_file(weights: str) -> Path | None:
    """The file that `model.weights` names: it has a suffix or a folder. None: the weights have a name."""
    path = Path(weights)
    return path if path.suffix or len(path.parts) > 1 else None


def digests(weights: str, classifier: str | None) -> dict[str, str]:
    """The digests of the files that `model.weights` and `model.classifier` name, by key; of names, none."""
    files = {"weights": weights_file(weights), "classifier": None if classifier is None else Path(classifier)}
    return {key: file_digest(file) for key, file in files.items() if file is not None and file.is_file()}


@dataclass(frozen=True)
class Filled:
    """What a network was filled from.

    Attributes:
        key: the parameter that names the file: `model.weights` or `model.classifier`.
        path: the file.
        at: where its state dict is: the keys of the dictionaries that it is in.
        prefix: what the names of the network's tensors begin with there.
        others: the other weights there, which are not the trunk's, by their names.
    """

    key: str
    path: Path
    at: str
    prefix: str
    others: Mapping[str, Tensor]

    def error(self, what: str) -> MacError:
        """What is wrong with the file."""
        return MacError(f"{self.key}: {self.path}: {what}")

    def log(self, also: str = "") -> None:
        """Say in one line what was taken; nothing if it was the plain names of the network."""
        place = [f"the state dict in {self.at}"] if self.at else []
        names = [f"names that begin with '{self.prefix}'"] if self.prefix else []
        if said := ", ".join([*place, *names, *([also] if also else [])]):
            log.info("%s: %s: took %s", self.key, self.path, said)


@dataclass(frozen=True)
class _Fit:
    """A state dict that has all names of a network, after a prefix."""

    at: str
    prefix: str
    naming: Mapping[str, str]  # from the network's own names to those after the prefix
    state: State

    def __str__(self) -> str:
        return " and ".join(part for part in (self.at, self.prefix and f"'{self.prefix}…'") if part)

    def tensors(self, names: Sequence[str]) -> list[object]:
        return [self.state.get(f"{self.prefix}{self.naming.get(name, name)}") for name in names]

    def same(self, other: "_Fit", names: Sequence[str]) -> bool:
        return all(map(_equal, self.tensors(names), other.tensors(names)))


def fill(network: nn.Module, path: Path, head: str, key: str = "model.weights") -> Filled:
    """Fill a network, except its head, from a file with the names of its library.

    The state dict may be anywhere in a checkpoint, and its names may begin alike, as with `module.`.

    Args:
        path: a file of safetensors or of `torch.save`.
        head: the module that is not filled. Its tensors may be missing.
        key: the parameter that names the file.

    Raises:
        MacError: the file does not fit, has several networks, or has values that are not finite.
    """
    of_head = f"{head}."
    whole = network.state_dict()
    wanted = {name: tensor for name, tensor in whole.items() if not name.startswith(of_head)}
    states = state_dicts(path, key)
    fit = _fit(states, network, wanted, head, f"{key}: {path}")
    for name, tensor in wanted.items():
        (found,) = fit.tensors([name])
        if found is None and name.endswith("num_batches_tracked"):
            continue
        if problem := _problem(found, tensor, name):
            raise MacError(f"{key}: {path}: '{name}' {problem}")
        assert isinstance(found, Tensor)
        tensor.copy_(found)
    taken = {f"{fit.prefix}{fit.naming[name]}" for name in wanted}
    computed = {_last(name) for name, _ in network.named_buffers() if name not in whole}
    others = {
        name: each
        for name, each in fit.state.items()
        if isinstance(each, Tensor) and name not in taken and _last(name) not in _BOOKKEEPING | computed
    }
    _require_no_more(others, fit, head, f"{key}: {path}")
    return Filled(key, path, fit.at, fit.prefix, others)


def state_dicts(path: Path, key: str) -> list[tuple[str, State]]:
    """Every dictionary of tensors in a file, with its place: the keys that lead to it.

    Args:
        path: a file of safetensors or of `torch.save`.
        key: what names the file; starts the error line.

    Raises:
        MacError: it cannot be read, or has none.
    """
    return list(_states(_read(path, key), path, key))


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _problem(found: object, tensor: Tensor, name: str) -> str:
    """Why a tensor of the network cannot be filled with what was found; empty if it can."""
    if not isinstance(found, Tensor) or found.shape != tensor.shape:
        what = tuple(found.shape) if isinstance(found, Tensor) else "nothing"
        other = "dataset.input_size" if "pos" in name else "architecture"  # embeddings of places in the image
        return f"should be {tuple(tensor.shape)}, found {what}; the file is of another {other}"
    return flaw(found, tensor.dtype)


def flaw(found: Tensor, wanted: torch.dtype) -> str:
    """Why a tensor of a file cannot be taken as one of this dtype; empty if it can."""
    if unreadable := _unreadable(found):
        return unreadable
    if found.is_complex() or found.is_floating_point() < wanted.is_floating_point:
        return f"should be {wanted}, found {found.dtype}"
    if not found.to(wanted).isfinite().all():
        return "has values that are NaN or infinite; use others"
    return ""


def _unreadable(found: Tensor) -> str:
    """Why a tensor has no numbers that can be copied; empty if it has."""
    if found.is_meta:
        return "has a shape and no values (device meta); save the weights from the model that was trained"
    if found.is_quantized:
        return f"is quantized ({found.dtype}); save the weights as they were before"
    if found.layout != torch.strided:
        return f"is sparse ({found.layout}); save its to_dense()"
    return ""


def _require_no_more(others: State, fit: _Fit, head: str, where: str) -> None:
    """Refuse a file with more tensors in the trunk: a ResNet-152 has all tensors of a ResNet-101.

    The trunk's parts are those of the network, without the one that has the head. If a network has tensors of
    its own, such as a class token, it is itself a part.
    """
    of_head = f"{head.partition('.')[0]}."
    parts = {_part(named) for name, named in fit.naming.items() if not name.startswith(of_head)}
    parts -= {_part(named) for name, named in fit.naming.items() if name.startswith(of_head)}
    for name in others:
        if name.startswith(fit.prefix) and _part(name.removeprefix(fit.prefix)) in parts:
            raise MacError(
                f"{where}: has '{name}', and this network has no tensor of that name; the file is of another "
                "architecture"
            )


def _part(name: str) -> str:
    """The part of a network that has a tensor; empty: the network itself."""
    part, dot, _ = name.partition(".")
    return part if dot else ""


def _read(path: Path, key: str) -> object:
    """What is in a file of safetensors or of `torch.save`. In place of Python objects are empty ones."""
    try:
        with regular(path) as file:
            start = file.read(64)
    except OSError as error:
        raise MacError(f"{key}: {path}: {first_line(error).lower()}") from None
    if not start:
        raise MacError(f"{key}: {path}: is empty; copy or download it again")
    is_safetensors = start[8:9] == b"{"
    for beginning, what in _NO_WEIGHTS.items():
        if start.lstrip().lower().startswith(beginning) and not is_safetensors:
            raise MacError(f"{key}: {path}: is {what}")
    if not is_safetensors and not start.startswith(_TORCH):
        raise MacError(f"{key}: {path}: is neither a safetensors file nor one of torch.save")
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise MacError(f"{key}: {path}: is cut off; copy or download it again")
    try:
        if is_safetensors:
            return load_file(path)
        _require_no_torchscript(path, key)
        with torch.serialization.safe_globals(_stand_ins(path)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, about sparse and quantized tensors: they are refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except MacError:
        raise
    except Exception as error:
        what = f"({first_line(error)}); copy or download it again"
        if type(error).__name__ == "UnpicklingError":
            what = f"as it has {_OBJECTS}"
        raise MacError(f"{key}: {path}: cannot be read {what}") from None


def _require_no_torchscript(path: Path, key: str) -> None:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise MacError(f"{key}: {path}: is TorchScript; save the model's state_dict() instead")


class _Nothing:
    """Stands for an object of NumPy, such as the best accuracy so far."""

    def __new__(cls, *_: object) -> "_Nothing":
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


class _Empty:
    """Stands for any other Python object, such as the arguments of a program: an empty dictionary.

    PyTorch puts items into an OrderedDict, and gives it attributes.
    """

    def __new__(cls, *_: object) -> OrderedDict[object, object]:  # type: ignore[misc]
        return OrderedDict()


def _stand_ins(path: Path) -> list[Callable[..., object] | tuple[Callable[..., object], str]]:
    """What `torch.load` is to make in place of the classes and functions that the file names.

    So a checkpoint that has settings and counts beside its weights can be read, and none of its code is
    imported or run.
    """
    if not zipfile.is_zipfile(path):
        return []  # the form before PyTorch 1.6: PyTorch cannot list them
    named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return [(_Nothing if name.startswith("numpy.") else _Empty, name) for name in named]


def _states(found: object, path: Path, key: str) -> Iterator[tuple[str, State]]:
    """As `state_dicts`, of what was read."""
    waiting, seen, count = [("", found)] if isinstance(found, Mapping) else [], set[int](), 0
    while waiting:
        at, each = waiting.pop(0)
        if id(each) in seen:  # a dictionary can hold itself
            continue
        seen.add(id(each))
        inner = {name: value for name, value in each.items() if isinstance(value, Mapping)}
        waiting += [(f"{at}['{name}']", value) for name, value in inner.items()]
        if any(isinstance(value, Tensor) for value in each.values()):
            count += 1
            yield at, {_OLD_DENSENET.sub(r"\1", str(name)): value for name, value in each.items()}
    if not count:
        raise MacError(f"{key}: {path}: has no tensors by name, but {_described(found)}")


def _described(found: object) -> str:
    """What is in a file that has no weights."""
    if isinstance(found, Tensor):
        return f"one tensor {tuple(found.shape)}; save a state_dict()"
    if not isinstance(found, Mapping):
        return f"a value of the type {type(found).__name__}; save a state_dict()"
    if any("_modules" in vars(each) for each in (found, *found.values()) if isinstance(each, OrderedDict)):
        return _OBJECTS
    return f"{_named(list(map(str, found))) or 'nothing'}; save a state_dict()"


def _fit(
    states: Sequence[tuple[str, State]],
    network: nn.Module,
    wanted: Mapping[str, Tensor],
    head: str,
    where: str,
) -> _Fit:
    """The one place of a file that has a network.

    Raises:
        MacError: there is none, or there are several, and their tensors differ.
    """
    names = [name for name in wanted if not name.endswith("num_batches_tracked")]
    namings = list(_namings(network, list(wanted)))
    fits: list[_Fit] = []
    for at, state in states:
        for naming in namings:
            prefixes = list(_prefixes(state, [naming[name] for name in names]))
            if prefixes:
                fits += [_Fit(at, prefix, naming, state) for prefix in prefixes]
                break  # the others would find the same tensors
    if not fits:
        raise MacError(f"{where}: {_misfit(states, namings, names, head)}")
    first, *others = fits
    of_head = [name for name in network.state_dict() if name not in wanted]
    if different := [each for each in others if not first.same(each, [*names, *of_head])]:
        found = ", ".join(str(each) or "the top level" for each in (first, *different))
        raise MacError(
            f"{where}: has several networks that differ ({found}); save the one that you mean, alone, in a "
            "file of its own"
        )
    return first


def _misfit(
    states: Sequence[tuple[str, State]],
    namings: Sequence[Mapping[str, str]],
    names: Sequence[str],
    head: str,
) -> str:
    """What a file has that has no whole network: the place with the most of its names decides."""
    most, missing = 0, list(names)
    for _, state in states:
        for naming in namings:
            prefix, hits = _most_alike(state, {naming[name] for name in names})
            if hits > most:
                most, missing = hits, [name for name in names if f"{prefix}{naming[name]}" not in state]
    if 2 * most < len(names):
        at, state = max(states, key=lambda each: len(each[1]))
        return (
            f"has no tensors with this architecture's names: wanted {_named(names)}; found "
            f"{_named(list(state))}{at and f' in {at}'}; the file is of another architecture or library"
        )
    outer = f"{head.partition('.')[0]}."
    if all(name.startswith(outer) for name in missing):
        reason = f"; the part before the head seems to be replaced; only '{head}' may be"
    else:
        reason = "; the file is of another architecture"
    return f"has some of this architecture's tensors, without {_named(missing)}{reason}"


def _most_alike(state: State, needed: Collection[str]) -> tuple[str, int]:
    """The prefix after which a state dict has the most of the names, and how many."""
    found = Counter[str]()
    for name in state:
        for place in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
            found[name[:place]] += name[place:] in needed
    return found.most_common(1)[0]


def _namings(network: nn.Module, wanted: Sequence[str]) -> Iterator[dict[str, str]]:
    """The names that a network's tensors have if it is kept as it is, or in parts.

    They are the library's own; those in `nn.Sequential(*network.children())`, numbers; and those in its only
    part with tensors, such as `network.features`.
    """
    yield {name: name for name in wanted}
    number = {name: str(place) for place, (name, _) in enumerate(network.named_children())}
    parts = {name: name.partition(".") for name in wanted}
    if all(part in number for part, _, _ in parts.values()):
        yield {name: f"{number[part]}.{rest}" for name, (part, _, rest) in parts.items()}
    if len({part for part, _, _ in parts.values()}) == 1:
        yield {name: rest for name, (_, _, rest) in parts.items()}


def _prefixes(state: State, needed: Sequence[str]) -> Iterator[str]:
    """What the names of a network begin with, for each network in a state dict that has all its names."""
    for name in state:
        prefix = name.removesuffix(needed[0])
        if prefix != name or name == needed[0]:
            is_whole = not prefix or prefix.endswith(".")
            if is_whole and all(f"{prefix}{each}" in state for each in needed):
                yield prefix


def _equal(one: object, other: object) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return one is other
    if _unreadable(one) or _unreadable(other):
        return bool(_unreadable(one))  # it is refused, whatever the other is
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def _named(names: Sequence[str]) -> str:
    """The first names of many, and how many there are."""
    shown = ", ".join(f"'{name}'" for name in names[:_MOST_NAMED])
    return f"{shown}, … ({len(names)} in all)" if len(names) > _MOST_NAMED else shown
