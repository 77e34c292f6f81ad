"""A small masks.h5, for the tests of how artefacts are written, opened and checked."""

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from pipeline import store
from pipeline.schemas.masks import SCHEMA

REMEDY = "run 'mac masks'"


def write(path: Path, rows: int = 4) -> None:
    """Write it, with so many masks."""
    with store.create(path, "masks", SCHEMA, {"k": 1}, {"images": "a", "erm": "b"}, names=["é"]) as artefact:
        artefact.write("row", np.arange(rows, dtype=np.int64))
        artefact.write("target", np.zeros(rows, np.int64))
        artefact.write("cam", np.ones((rows, 2, 2), np.float32))
        artefact.create("mask", (rows, 8, 8))[...] = True
        artefact.write("channel_mean", np.full((rows, 3), 0.5, np.float32))


def opened(path: Path, digest: str | None = None) -> AbstractContextManager[store.Artefact]:
    """The file, opened and checked."""
    return store.open_artefact(path, "masks", SCHEMA, REMEDY, digest)
