"""Model folders: model.safetensors has the tensors, and model.json states how to build the model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from pipeline.errors import MacError, first_line
from pipeline.spec import ModelSpec
from pipeline.store.files import tensor_errors, write_json
from pipeline.store.provenance import VERSION, Provenance, digest_of, file_digest

TENSORS = "model.safetensors"


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
    """

    path: Path
    spec: ModelSpec
    provenance: Provenance
    sets: frozenset[str]

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
    write_json(folder / "model.json", {**about, "files": digests})


def open_model(path: Path, kind: str, remedy: str, digest: str | None = None) -> ModelFolder:
    """Open a model folder, and check that model.json and the tensors belong together.

    Args:
        kind: its name, such as `erm`.
        remedy: what to do when something is wrong, such as `run 'mac train'`.
        digest: the digest that it must have.

    Raises:
        MacError: it is missing, damaged, or of another kind or version.
    """
    description = path / "model.json"
    if not description.is_file():
        raise MacError(f"{description}: no such file; {remedy}")
    try:
        about = json.loads(description.read_text(encoding="utf-8"))
        found, version, digests = about["schema"], about["version"], dict(about["files"])
        if found != kind or version != VERSION:
            expected = f"expected '{kind}' version {VERSION}"
            raise MacError(f"{description}: holds '{found}' version {version}, {expected}; {remedy}")
        provenance = Provenance.checked(about["params"], about["made_from"], _digest(about))
        spec = ModelSpec.from_json(about["spec"])
    except _BROKEN as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise MacError(f"{description}: damaged ({reason}); {remedy}") from None
    for name in digests:
        file = path / Path(name).name
        if not file.is_file():
            raise MacError(f"{file}: no such file; {remedy}")
        if file_digest(file) != digests[name]:
            raise MacError(f"{file}: truncated or changed: its digest is not the one in model.json; {remedy}")
    if digest is not None and provenance.digest != digest:
        raise MacError(f"{path}: was replaced while it was in use; run the same command again")
    return ModelFolder(path, spec, provenance, frozenset(Path(name).stem for name in digests))


def stated_model(path: Path) -> tuple[str | None, str | None]:
    """The kind and the digest that a model folder states; None if it states none."""
    try:
        about = json.loads((path / "model.json").read_text(encoding="utf-8"))
        return str(about["schema"]), _digest(about)
    except _BROKEN:
        return None, None


def _digest(about: Mapping[str, Any]) -> str:
    """The digest of a model: its tensors, and how they are used."""
    if TENSORS not in about["files"]:
        raise ValueError(f"files should have {TENSORS}")
    return digest_of(about["spec"], about["files"])


# What reading a damaged model.json raises.
_BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
