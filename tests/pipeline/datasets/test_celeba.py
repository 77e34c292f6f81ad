from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.datasets import celeba
from pipeline.errors import MacError
from tests import official_layouts


@pytest.mark.parametrize("spelling", ["txt", "csv"])
def test_both_spellings_give_the_same_records(tmp_path: Path, spelling: str) -> None:
    official_layouts.celeba(tmp_path, spelling)
    dataset = celeba.read(tmp_path, celeba.Options())
    dataset.check()
    assert dataset.groups.classes == ("not_Blond_Hair", "Blond_Hair")
    assert dataset.groups.attributes == ("not_Male", "Male")
    assert len(dataset.records) == 36
    assert [(r.label, r.attribute, r.split) for r in dataset.records] == [
        (g % 4 // 2, g % 2, s) for s in range(3) for g in range(12)
    ]
    assert dataset.records[0].image.load(tmp_path).size == (178, 218)
    assert dataset.records[35].image.name.endswith("000036.jpg")


def test_any_pair_of_attributes(tmp_path: Path) -> None:
    official_layouts.celeba(tmp_path, "txt")
    dataset = celeba.read(tmp_path, celeba.Options(label="Male", attribute="Smiling"))
    assert dataset.groups.classes == ("not_Male", "Male")
    assert [r.label for r in dataset.records[:4]] == [0, 1, 0, 1]
    assert [r.attribute for r in dataset.records[:4]] == [0, 1, 1, 0]


@pytest.mark.parametrize("spelling", ["txt", "csv"])
def test_what_is_wrong_is_one_line(tmp_path: Path, spelling: str) -> None:
    with pytest.raises(
        MacError,
        match=r"neither list_eval_partition.txt nor list_eval_partition.csv is there; dataset.root should be",
    ):
        celeba.read(tmp_path, celeba.Options())
    official_layouts.celeba(tmp_path, spelling)
    with pytest.raises(
        MacError, match="no column Blonde_Hair; it has image_id, 5_o_Clock_Shadow, Blond_Hair, Male, Smiling"
    ):
        celeba.read(tmp_path, celeba.Options(label="Blonde_Hair"))
    partition = tmp_path / f"list_eval_partition.{spelling}"
    lines = partition.read_text().splitlines()
    partition.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(MacError, match=r"line 3[78]: 000036.jpg is not in list_eval_partition"):
        celeba.read(tmp_path, celeba.Options())
    partition.write_text("\n".join([*lines[:-1], lines[-1][:-1] + "3"]) + "\n")
    with pytest.raises(MacError, match=r"line 3[67]: partition is '3', expected 0, 1 or 2"):
        celeba.read(tmp_path, celeba.Options())


def test_a_short_or_odd_line_is_named(tmp_path: Path) -> None:
    official_layouts.celeba(tmp_path, "txt")
    file = tmp_path / "list_attr_celeba.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:4], "000003.jpg -1", *lines[5:]]))
    with pytest.raises(
        MacError, match="list_attr_celeba.txt, line 5: the line ends before column Blond_Hair"
    ):
        celeba.read(tmp_path, celeba.Options())
    file.write_text("\n".join([*lines[:4], "000003.jpg -1 7 1 1", *lines[5:]]))
    with pytest.raises(MacError, match="list_attr_celeba.txt, line 5: Blond_Hair is '7', expected -1 or 1"):
        celeba.read(tmp_path, celeba.Options())


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (
            lambda lines: lines[1:],
            "line 1: has the attributes' names, no number of images; .*: add what is missing",
        ),
        (lambda lines: lines[2:], "line 1: has an image, no number of images"),
        (lambda lines: [lines[0], *lines[2:]], "has no attributes' names below the number of images"),
        (lambda lines: lines[:-3], "its first line says 36 images, but 33 are listed; the file is not whole"),
        (lambda lines: ["", *lines], None),
    ],
)
def test_a_list_without_its_first_lines_is_told(
    tmp_path: Path, cut: Callable[[list[str]], list[str]], message: str | None
) -> None:
    official_layouts.celeba(tmp_path, "txt")
    file = tmp_path / "list_attr_celeba.txt"
    file.write_text("\n".join(cut(file.read_text().splitlines())) + "\n")
    if message is None:
        assert len(celeba.read(tmp_path, celeba.Options()).records) == 36
        return
    with pytest.raises(MacError, match=f"list_attr_celeba.txt.*{message}"):
        celeba.read(tmp_path, celeba.Options())
