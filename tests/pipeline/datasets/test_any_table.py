"""Whatever stands in a table: prepare writes its rows in order, or says in one line why not."""

import csv
import io
import tempfile
from pathlib import Path
from typing import TypeVar

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.compute.context import Context
from pipeline.datasets.names import is_missing
from pipeline.datasets.table import SPLIT_CODES
from pipeline.errors import MacError
from pipeline.params.dataset import DatasetParams
from pipeline.steps.prepare import prepare
from tests.conftest import nothing, open_file

T = TypeVar("T")
FILES = [f"{number}.png" for number in range(8)]
# Mostly what belongs there, so that whole tables are valid too; sometimes anything.
anything = st.text(max_size=8)
label = st.sampled_from(["cat", "dog", "0", " dog ", "é"]) | anything
split = st.sampled_from([*SPLIT_CODES, "Train"]) | anything
attribute = st.sampled_from(["", "sofa", "bench"]) | anything
path = st.sampled_from([*FILES, "missing.png", "../out.png", "/etc/passwd", "broken.png", "."]) | anything
good_rows = st.permutations(FILES).flatmap(
    lambda files: st.tuples(
        *(
            st.tuples(
                st.just(file),
                st.sampled_from(["cat", "dog"]),
                st.sampled_from(["train", "val", "test"]),
                attribute,
            )
            for file in files
        )
    )
)


def mostly(usual: st.SearchStrategy[T], other: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """The one four times out of five."""
    return st.integers(0, 4).flatmap(lambda number: usual if number else other)


rows = st.lists(st.tuples(path, label, split, attribute), max_size=8) | good_rows.map(list)
header = mostly(st.just(["path", "label", "split", "where"]), st.lists(anything, max_size=5))
tail = mostly(st.just(b""), st.binary(max_size=6))


def images(root: Path) -> None:
    for number, file in enumerate(FILES):
        Image.fromarray(np.full((6, 6, 3), number, np.uint8)).save(root / file)
    (root / "broken.png").write_bytes(b"\x89PNG")


@settings(max_examples=300, deadline=None)
@example(
    header=["path", "label", "split", "where"],
    rows=[
        (file, "ab"[number % 2], ("train", "val", "test")[number // 2 % 3], "\0")
        for number, file in enumerate(FILES)
    ],
    delimiter=",",
    tail=b"",
)
@given(header=header, rows=rows, delimiter=st.sampled_from(",;\t"), tail=tail)
def test_any_table(header: list[str], rows: list[tuple[str, ...]], delimiter: str, tail: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "raw", Path(folder) / "data" / "images.h5"
        root.mkdir()
        images(root)
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter).writerows([header, *rows])
        (root / "my.csv").write_bytes(text.getvalue().encode("utf-8", "surrogatepass") + tail)
        options = {"metadata": "my.csv", "attribute": "where"}
        params = DatasetParams(
            name="folder",
            root=str(root),
            options=options,
            stored_size=6,
            to_stored="squash",
            range="auto",
            interpolation="bilinear",
            storage="pixels",
            on_error="fail",
            on_duplicates="fail",
        )
        refusal = None
        try:
            prepare(nothing(root), out, params, Context("cpu", Path(folder) / "scratch"))
        except MacError as error:
            refusal = str(error)
        if refusal is not None:
            assert len(refusal.splitlines()) == 1
            assert not [file for file in out.parent.glob("*") if file.suffix != ".csv"]
            return
        with open_file(out) as artefact:
            classes, attributes = artefact.attribute("classes"), [*artefact.attribute("attributes"), ""]
            found = zip(
                *(artefact[name][:] for name in ("path", "label", "split", "attribute", "image")), strict=True
            )
            told = [row for row in rows if any(cell for cell in row)]
            train, val = SPLIT_CODES["train"], SPLIT_CODES["val"]
            without_val = val not in [SPLIT_CODES.get(row[2].strip().lower()) for row in told]  # it is drawn
            assert (
                len(artefact["path"]) >= len(told) - 1
            )  # the tail may be read as part of the last row, or as one more
            for (p, label, split, attribute, image), row in list(zip(found, told, strict=False))[
                : len(told) - 1
            ]:
                assert p.decode() == row[0].strip()
                assert classes[label] == row[1].strip()
                said = SPLIT_CODES[row[2].strip().lower()]
                assert split == said or (said == train and split == val and without_val)
                assert attributes[attribute] == ("" if is_missing(row[3]) else row[3].strip())
                assert (image == FILES.index(row[0].strip())).all()
