"""Artefacts on disk: how they are declared, written completely or not at all, and checked when opened.

There are two forms, with the same provenance:

- an HDF5 file (`images`, `maps`, `masks`, `originals`, `features`, `examples`) with the datasets of its
schema in `pipeline.schemas`: `writer` writes it, `artefact` opens and checks it;
- a model folder (`erm`, `retrained`, …): `models`.

They hold no time, host or revision, so the same inputs give the same bytes.
"""

from pipeline.store.artefact import Artefact, open_artefact, stated_kind
from pipeline.store.encoded import Pictures, Sizes, encode, require_webp, webp
from pipeline.store.files import (
    create_folder,
    read_csv,
    read_json,
    regular,
    replacing,
    tensor_errors,
    write_csv,
    write_json,
    write_text,
)
from pipeline.store.models import (
    FittedHeads,
    ModelFolder,
    open_model,
    stated_model,
    write_model,
)
from pipeline.store.provenance import VERSION, Provenance, digest_of, file_digest
from pipeline.store.rows import Chunks, Place, Rows, Target
from pipeline.store.schema import SPLITS, Between, Codes, Field, Schema
from pipeline.store.seal import stated_digest
from pipeline.store.writer import Writer, create

__all__ = [
    "SPLITS",
    "VERSION",
    "Artefact",
    "Between",
    "Chunks",
    "Codes",
    "Field",
    "FittedHeads",
    "ModelFolder",
    "Pictures",
    "Place",
    "Provenance",
    "Rows",
    "Schema",
    "Sizes",
    "Target",
    "Writer",
    "create",
    "create_folder",
    "digest_of",
    "encode",
    "file_digest",
    "open_artefact",
    "open_model",
    "read_csv",
    "read_json",
    "regular",
    "replacing",
    "require_webp",
    "stated_digest",
    "stated_kind",
    "stated_model",
    "tensor_errors",
    "webp",
    "write_csv",
    "write_json",
    "write_model",
    "write_text",
]
