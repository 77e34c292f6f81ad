"""Model folders: model.safetensors has the tensors, and model.json states how to build the model.

model.json states the digest of each file of tensors, and the digest of all else that it states itself: its
seal. A folder may come from anyone, and whoever changes it can seal it again. So all that it states is
checked too. What is checked, and what is not, is in SECURITY.md.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from pipeline.errors import MacError, first_line
from pipeline.spec import ModelSpec
from pipeline.store.files import read_json, tensor_errors, write_json
from pipeline.store.provenance import VERSION, Provenance, digest_of, file_digest
from pipeline.store.schema import Field, Schema

TENSORS = "model.safetensors"
SEAL = "seal"  # the key of the digest of all else in model.json
# From the kind, a set of tensors and their names to what they should be.
Fields = Callable[[str, str, list[str]], Schema]


@dataclass(frozen=True)
class FittedHeads:
    """S linear heads as they are on disk: weight (S, C, D) and bias (S, C), float32."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[np.float32]], method: str) -> "FittedHeads":
        """The heads of one of several methods, of the tensors `<method>.weight` and `<method>.bias`."""
        return cls(tensors[f"{method}.weight"], tensors[f"{method}.bias"])

    def named(self, method: str) -> dict[str, NDArray[np.float32]]:
        """The two tensors, by the names under which `of` finds them."""
        return {f"{method}.weight": self.weight, f"{method}.bias": self.bias}

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (N, D) to (S, N, C)."""
        return np.asarray(features @ self.weight.swapaxes(-1, -2) + self.bias[:, None, :])

    def __len__(self) -> int:
        return len(self.bias)

    def __getitem__(self, head: int) -> "FittedHeads":
        """One of the heads (S = 1)."""
        return FittedHeads(self.weight[head][None], self.bias[head][None])


@dataclass(frozen=True)
class ModelFolder:
    """A checked model on disk.

    Attributes:
        sets: the names of its sets of tensors, `<name>.safetensors` each.
        lengths: the lengths of the tensors' axes, of the names in the spec, and of its sizes.
    """

    path: Path
    spec: ModelSpec
    provenance: Provenance
    sets: frozenset[str]
    lengths: Mapping[str, int] = field(default_factory=dict)

    @property
    def tensors(self) -> Path:
        """The .safetensors file with the state dict of `pipeline.network.classifier.Classifier`."""
        return self.path / TENSORS

    @property
    def digest(self) -> str:
        return self.provenance.digest

    def read(self, name: str = "model") -> dict[str, NDArray[Any]]:
        """All tensors of `<name>.safetensors`, as NumPy arrays.

        Raises:
            MacError: model.json does not state this file, so it was not checked.
        """
        if name not in self.sets:
            raise MacError(f"{self.path / 'model.json'}: states no {name}.safetensors; make the model again")
        return load_file(self.path / f"{name}.safetensors")

    def head(self) -> FittedHeads:
        """The classifier's own head, S = 1."""
        with safe_open(self.tensors, "numpy") as file:
            return FittedHeads(file.get_tensor("head.weight")[None], file.get_tensor("head.bias")[None])

    def heads(self) -> FittedHeads:
        """All heads of `head.safetensors`, one for each seed."""
        found = self.read("head")
        return FittedHeads(found["weight"], found["bias"])


def write_model(
    folder: Path,
    kind: str,
    tensors: Mapping[str, NDArray[Any]],
    spec: ModelSpec,
    params: Mapping[str, Any],
    made_from: Mapping[str, str],
    **others: Mapping[str, NDArray[Any]],
) -> None:
    """Write model.safetensors and model.json into `folder`, which comes from `create_folder`.

    Args:
        others: more sets of tensors; each is written to `<name>.safetensors`.
    """
    digests = {}
    for name, values in {"model": tensors, **others}.items():
        path = folder / f"{name}.safetensors"
        with tensor_errors():
            save_file({key: np.asarray(value, order="C") for key, value in values.items()}, path)
        path.chmod(0o644)  # safetensors makes files that only the owner can read
        digests[path.name] = file_digest(path)
    about = {
        "schema": kind,
        "version": VERSION,
        "spec": spec.as_json(),
        "params": params,
        "made_from": made_from,
    }
    write_json(folder / "model.json", sealed({**about, "files": digests}))


def sealed(about: Mapping[str, Any]) -> dict[str, Any]:
    """What model.json states, with its seal."""
    rest = {key: value for key, value in about.items() if key != SEAL}
    return {**rest, SEAL: digest_of(rest)}


def open_model(
    path: Path,
    kind: str,
    remedy: str,
    digest: str | None = None,
    fields: Fields | None = None,
    needed: Sequence[str] = (),
) -> ModelFolder:
    """Open a model folder, and check that model.json and the tensors belong together.

    Args:
        kind: its name, such as `erm`.
        remedy: what to do when something is wrong, such as `run 'mac train'`.
        digest: the digest that it must have.
        fields: what its tensors should be; None to check only that they are finite.
        needed: the sets of tensors that it must have besides `model`.

    Raises:
        MacError: it is missing, damaged, or of another kind or version; or what it states, or a tensor, is
            not what it can be.
    """
    description = path / "model.json"
    about = read_json(description, remedy)
    try:
        found, version = about.get("schema"), about.get("version")
        if found != kind or version != VERSION:
            expected = f"expected '{kind}' version {VERSION}"
            raise MacError(f"{description}: holds '{found}' version {version}, {expected}; {remedy}")
        if SEAL not in about:
            raise MacError(
                f"{description}: states no digest of itself (of an earlier version); {remedy} again"
            )
        if about != sealed(about):
            raise ValueError("its contents are not what was written")
        if missing := {f"{name}.safetensors" for name in needed} - about["files"].keys():
            raise ValueError(f"files should have {min(missing)}")
        provenance = Provenance.checked(about["params"], about["made_from"], _digest(about))
        spec = ModelSpec.from_json(about["spec"])
    except _BROKEN as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise MacError(f"{description}: damaged ({reason}); {remedy}") from None
    lengths = {
        "class": len(spec.classes),
        "attribute": len(spec.attributes),
        "stored_size": spec.stored_size,
        "input_size": spec.input_size,
    }
    for name, expected in about["files"].items():
        file = path / name
        try:
            if file_digest(file) != expected:
                reason = "truncated or changed: its digest is not the one in model.json"
                raise MacError(f"{file}: {reason}; {remedy}")
            with safe_open(file, "numpy") as tensors:
                names = list(tensors.keys())
                declared = fields(kind, file.stem, names) if fields else {}
                _require_tensors(map(tensors.get_tensor, names), names, declared, lengths)
        except FileNotFoundError:
            raise MacError(f"{file}: no such file; {remedy}") from None
        except (*_BROKEN, SafetensorError) as error:
            raise MacError(f"{file}: damaged ({first_line(error)}); {remedy}") from None
    if digest is not None and provenance.digest != digest:
        raise MacError(f"{path}: was replaced while it was in use; run the same command again")
    return ModelFolder(path, spec, provenance, frozenset(Path(name).stem for name in about["files"]), lengths)


def _require_tensors(
    tensors: Iterable[NDArray[Any]], names: Sequence[str], fields: Schema, lengths: dict[str, int]
) -> None:
    """Check a set of tensors, one after the other. The lengths of their axes are added to `lengths`.

    Raises:
        ValueError: one is missing, has the wrong type or shape, or a value that it cannot have.
    """
    for name, each in fields.items():
        if name not in names and not each.optional:
            raise ValueError(f"tensor '{name}' is missing")
    for name, tensor in zip(names, tensors, strict=True):
        if problem := _problem(tensor, fields.get(name), lengths):
            raise ValueError(f"tensor '{name}' {problem}")


def _problem(tensor: NDArray[Any], expected: Field | None, lengths: dict[str, int]) -> str:
    """What is wrong with a tensor; empty if nothing is."""
    if expected is None:
        is_finite = tensor.dtype.kind != "f" or np.isfinite(tensor).all()
        return "" if is_finite else "has a number that is not finite"
    if tensor.dtype != np.dtype(expected.dtype) or tensor.ndim != len(expected.dims):
        return f"is {tensor.dtype} {tensor.shape}, expected {expected.dtype} {expected.dims}"
    return expected.misfit(tensor.shape, lengths) or expected.problem(tensor, lengths)


def stated_model(path: Path) -> tuple[str | None, str | None]:
    """The kind and the digest that a model folder states; None if it states none."""
    try:
        about = read_json(path / "model.json", "")
        return str(about["schema"]), _digest(about)
    except (MacError, *_BROKEN):
        return None, None


def _digest(about: Mapping[str, Any]) -> str:
    """The digest of a model: its tensors, and how they are used."""
    files = about["files"]
    if not isinstance(files, dict) or TENSORS not in files:
        raise ValueError(f"files should have {TENSORS}")
    for name in files:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"files: '{name}' is no file of tensors in this folder")
    return digest_of(about["spec"], files)


# What reading a damaged model.json raises.
_BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
