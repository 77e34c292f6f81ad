"""Model folders: model.safetensors has the tensors, and model.json states how to build the model.


model.json states the digest of each file of tensors, and the digest of all else that it states itself: its
seal. A folder may come from anyone, and whoever changes it can seal it again. So all that it states is
checked too. What is checked, and what is not, is in SECURITY.md.
"""

from collections.abc import Callable, Mapping
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
from pipeline.store.schema import Schema

TENSORS = "model.safetensors"
SEAL = "seal"  # the key of the digest of all else in model.json
# From the kind, a set of tensors and their names to what they should be.
Fields = Callable[[str, str, list[str]], Schema]


@dataclass(frozen=True)
class FittedHeads:
    """S linear heads as they are on disk: weight (S, C, D) and bias (S, C), float32."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

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
        """All tensors of `<name>.safetensors`, as NumPy arrays."""
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
    path: Path, kind: str, remedy: str, digest: str | None = None, fields: Fields | None = None
) -> ModelFolder:
    """Open a model folder, and check that model.json and the tensors belong together.

    Args:
        kind: its name, such as `erm`.
        remedy: what to do when something is wrong, such as `run 'mac train'`.
        digest: the digest that it must have.
        fields: what its tensors should be; None to check only that they are finite.

    Raises:
        MacError: it is missing, damaged, or of another kind or version; or what it states, or a tensor, is
            not what it can be.
    """
    description = path / "model.json"
    if not description.is_file():
        raise MacError(f"{description}: no such file; {remedy}")
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
    sets = {}
    for name, expected in about["files"].items():
        file = path / name
        if not file.is_file():
            raise MacError(f"{file}: no such file; {remedy}")
        try:
            if file_digest(file) != expected:
                reason = "truncated or changed: its digest is not the one in model.json"
                raise MacError(f"{file}: {reason}; {remedy}")
            sets[file.stem] = load_file(file)
            names = list(sets[file.stem])
            _require_tensors(sets[file.stem], fields(kind, file.stem, names) if fields else {}, lengths)
        except (*_BROKEN, SafetensorError) as error:
            raise MacError(f"{file}: damaged ({first_line(error)}); {remedy}") from None
    if digest is not None and provenance.digest != digest:
        raise MacError(f"{path}: was replaced while it was in use; run the same command again")
    return ModelFolder(path, spec, provenance, frozenset(sets), lengths)


def _require_tensors(tensors: Mapping[str, NDArray[Any]], fields: Schema, lengths: dict[str, int]) -> None:
    """Check a set of tensors. The lengths of their axes are added to `lengths`.

    Raises:
        ValueError: one is missing, has the wrong type or shape, or a value that it cannot have.
    """
    for name, each in fields.items():
        if name not in tensors:
            if each.optional:
                continue
            raise ValueError(f"tensor '{name}' is missing")
        tensor = tensors[name]
        if tensor.dtype != np.dtype(each.dtype) or tensor.ndim != len(each.dims):
            found = f"{tensor.dtype} {tensor.shape}"
            raise ValueError(f"tensor '{name}' is {found}, expected {each.dtype} {each.dims}")
        if problem := each.misfit(tensor.shape, lengths) or each.problem(tensor, lengths):
            raise ValueError(f"tensor '{name}' {problem}")
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise ValueError(f"tensor '{name}' has a number that is not finite")


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
