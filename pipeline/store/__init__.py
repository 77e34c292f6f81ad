"""Artefacts on disk: what is in each, how one is written whole or not at all, and how one is opened with suspicion.

Two forms, with the same provenance:

- an HDF5 file (`images`, `masks`, `features`): `hdf5`, with the datasets listed in `schemas`;
- a model folder (`erm`, `retrained`): `models`.

Nothing of time, host or revision goes in, so the same inputs give the same bytes.
"""

from pipeline.store.files import create_folder, read_json, replacing, tensor_errors, write_csv, write_json, write_text
from pipeline.store.hdf5 import Artefact, Writer, create, open_artefact
from pipeline.store.models import ModelFolder, model_kind, open_model, write_model
from pipeline.store.provenance import MADE_BY, VERSION, Provenance, digest_of, file_digest
from pipeline.store.schemas import SCHEMAS, SPLITS, Field

__all__ = [
    "MADE_BY",
    "SCHEMAS",
    "SPLITS",
    "VERSION",
    "Artefact",
    "Field",
    "ModelFolder",
    "Provenance",
    "Writer",
    "create",
    "create_folder",
    "digest_of",
    "file_digest",
    "model_kind",
    "open_artefact",
    "open_model",
    "read_json",
    "replacing",
    "tensor_errors",
    "write_csv",
    "write_json",
    "write_model",
    "write_text",
]
