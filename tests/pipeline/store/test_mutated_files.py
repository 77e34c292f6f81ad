"""Artefacts whose bytes were changed: each is what it was before, or is refused with one line."""

import random
from pathlib import Path

import numpy as np
import pytest

from pipeline import store
from pipeline.errors import MacError
from pipeline.schemas import images, masks

FILES = 2000
SCHEMAS = {"images": images.SCHEMA, "masks": masks.SCHEMA}


def make(folder: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.h5" for name in SCHEMAS}
    made_from = {"images": "a", "erm": "b"}
    with store.create(paths["masks"], "masks", masks.SCHEMA, {"k": 1}, made_from) as artefact:
        artefact.write("row", np.arange(4))
        artefact.write("target", np.zeros(4, np.int64))
        artefact.write("cam", np.ones((4, 2, 2), np.float32))
        artefact.create("mask", (4, 8, 8))[...] = True
        artefact.write("channel_mean", np.full((4, 3), 0.5, np.float32))
    names = {"classes": ["a", "b"], "attributes": ["c", "d"]}
    with store.create(paths["images"], "images", images.SCHEMA, {}, {}, **names) as artefact:
        for name in ("label", "attribute", "split"):
            artefact.write(name, np.arange(3) % 2)
        artefact.write("path", ["a/é.jpg", "b.jpg", "c.jpg"])
        artefact.create("image", (3, 6, 6, 3))[...] = 7
    return paths


def contents(path: Path, kind: str) -> dict[str, bytes]:
    with store.open_artefact(path, kind, SCHEMAS[kind], "") as artefact:
        found = {name: artefact[name][:].tobytes() for name in SCHEMAS[kind] if name in artefact}
        classes = artefact.attribute("classes") if kind == "images" else ""
        return found | {"about": repr((artefact.provenance, classes)).encode()}


def mutated(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    kind = rng.choice(["bits", "bits", "bytes", "cut", "zeros", "copied", "inserted"])
    start = rng.randrange(len(changed))
    length = rng.randint(1, 64)
    if kind == "bits":
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == "bytes":
        changed[start : start + 8] = rng.randbytes(len(changed[start : start + 8]))
    elif kind == "cut":
        del changed[start:]
    elif kind == "zeros":
        changed[start : start + length] = bytes(len(changed[start : start + length]))
    elif kind == "copied":
        source = rng.randrange(len(changed))
        changed[start : start + length] = changed[source : source + len(changed[start : start + length])]
    else:
        changed[start:start] = rng.randbytes(length)
    return bytes(changed)


@pytest.mark.parametrize("kind", ["masks", "images"])
def test_each_mutated_file_is_what_it_was_or_refused_with_one_line(kind: str, tmp_path: Path) -> None:
    path = make(tmp_path)[kind]
    content, expected, refused = path.read_bytes(), contents(path, kind), 0
    for seed in range(FILES // 2):
        changed = mutated(content, random.Random(seed))
        path.unlink()
        path.write_bytes(changed)
        try:
            found, error = contents(path, kind), ""
        except MacError as refusal:
            found, error = expected, str(refusal)
        assert found == expected, seed
        assert not error or (str(path) in error and "\n" not in error), seed
        refused += bool(error)
    assert refused > FILES // 8
