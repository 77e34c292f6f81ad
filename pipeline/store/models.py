"""Model folders: model.safetensors with the tensors, and model.json that says how to build the model."""

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
from pipeline.store.files import tensor_errors, write_json
from pipeline.store.provenance import MADE_BY, VERSION, Provenance, file_digest

TENSORS = "model.safetensors"


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk.

    Attributes:
        spec: how to build it: architecture, classes, input, normalisation.
        tensors: path of the .safetensors file with the state dict of `pipeline.network.backbone.Classifier`.
    """

    path: Path
    spec: Mapping[str, Any]
    provenance: Provenance

    @property
    def tensors(self) -> Path:
        return self.path / TENSORS

    @property
    def digest(self) -> str:
        return self.provenance.digest

    def read(self, name: str = "model") -> dict[str, NDArray[Any]]:
        """All tensors of `<name>.safetensors`, as NumPy arrays."""
        return load_file(self.path / f"{name}.safetensors")

    def head(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The head's weight (classes, D) and bias (classes,)."""
        with safe_open(self.tensors, "numpy") as file:
            return file.get_tensor("head.weight"), file.get_tensor("head.bias")


def write_model(
    folder: Path,
    kind: str,
    tensors: Mapping[str, NDArray[Any]],
    spec: Mapping[str, Any],
    params: Mapping[str, Any],
    made_from: Mapping[str, str],
    **others: Mapping[str, NDArray[Any]],
) -> None:
    """Write model.safetensors and model.json into `folder` (one under construction, from `create_folder`).

    Args:
        others: further sets of tensors, each written to `<name>.safetensors`.
    """
    digests = {}
    for name, values in {"model": tensors, **others}.items():
        path = folder / f"{name}.safetensors"
        with tensor_errors():
            save_file({key: np.asarray(value, order="C") for key, value in values.items()}, path)
        path.chmod(0o644)  # safetensors makes its files for the owner alone
        digests[path.name] = file_digest(path)
    about = {"schema": kind, "version": VERSION, "spec": spec, "params": params, "made_from": made_from}
    write_json(folder / "model.json", {**about, "files": digests})


def open_model(path: Path, kind: str, made_from: Mapping[str, str] | None = None, digest: str | None = None) -> ModelFolder:
    """Open a model folder and check that description and tensors belong together.

    Raises:
        MacError: missing, damaged, of another kind or version, or made from something else.
    """
    remedy = f"run 'mac {MADE_BY[kind]}'"
    description = path / "model.json"
    if not description.is_file():
        raise MacError(f"{description}: no such file; {remedy}")
    try:
        about = json.loads(description.read_text())
        digests = dict(about["files"])
        provenance = Provenance(about["params"], about["made_from"], digests[TENSORS])
        found, version, spec = about["schema"], about["version"], about["spec"]
    except (ValueError, KeyError, TypeError) as error:
        raise MacError(f"{description}: damaged ({type(error).__name__}: {first_line(error)}); {remedy}") from None
    if found != kind or version != VERSION:
        raise MacError(f"{description}: holds '{found}' version {version}, expected '{kind}' version {VERSION}; {remedy}")
    for name in digests:
        file = path / Path(name).name
        if not file.is_file():
            raise MacError(f"{file}: no such file; {remedy}")
        if file_digest(file) != digests[name]:
            raise MacError(f"{file}: truncated or changed: its digest is not the one in model.json; {remedy}")
    if digest is not None and provenance.digest != digest:
        raise MacError(f"{path}: was replaced while it was in use; run the same command again")
    provenance.require(kind, path, made_from or {})
    return ModelFolder(path, spec, provenance)


def model_kind(path: Path) -> str:
    """What a model folder says that it is: `erm`, `retrained`, …; `erm` where it says nothing."""
    try:
        found = json.loads((path / "model.json").read_text()).get("schema")
    except (OSError, ValueError, AttributeError):
        return "erm"
    return found if found in MADE_BY else "erm"
