"""Labels and attributes as text: spellings of one name, and words for values that are not there."""

from pathlib import Path

import pytest

from pipeline.datasets import folder
from pipeline.datasets.names import distinct, is_missing, normal
from pipeline.datasets.record import Dataset
from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN

SPLITS = ("train", "train", "val", "val", "test", "test")


def table(root: Path, labels: list[str], attributes: list[str]) -> Dataset:
    """The dataset of a table of six images, whose labels and attributes are repeated."""
    rows = []
    for number, split in enumerate(SPLITS):
        label, attribute = labels[number % len(labels)], attributes[number % len(attributes)]
        rows.append(f"{number}.png,{label},{split},{attribute}\n")
    (root / "m.csv").write_text("path,label,split,where\n" + "".join(rows), encoding="utf-8")
    dataset = folder.read(root, folder.Options(metadata="m.csv", attribute="where"))
    dataset.check()
    return dataset


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0", "0.0"), ("1", "01"), ("1", "1,0"), ("1", "+1"), ("-1", "-1.00"), ("-0", "0"), ("１", "1"),
        ("Cat", "cat"), ("polar\u00a0bear", "polar bear"), ("a  b", "a b"), ("dog\u200b", "dog"),
        ("caf\u00e9", "cafe\u0301"), ("ﬁsh", "fish"), ("Straße", "STRASSE"), (" dog ", "dog"),
    ],
)  # fmt: skip
def test_spellings_of_one_name(tmp_path: Path, one: str, other: str) -> None:
    assert normal(one) == normal(other)
    if one.strip() == other:
        return  # cells are stripped
    quoted = [f'"{name}"' for name in (one, other, "else")]
    for labels, attributes, column in ((quoted, ["x"], "label"), (["a", "b"], quoted, "where")):
        with pytest.raises(
            MacError, match=f"m.csv: values of {column} differ in their spelling alone"
        ) as error:
            table(tmp_path, labels, attributes)
        assert f"{one!a} (2)" in str(error.value)
        assert f"{other!a} (2)" in str(error.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0", "1"),
        ("1", "10"),
        ("1.0", "1.01"),
        ("cat", "cats"),
        ("i", "İ"),
        ("1", "1a"),
        ("1", "1e0"),
        ("-1", "1"),
        ("3.1", "3.10"),
        ("1_0", "10"),
        ("1e2", "100"),
        ("1,000", "1"),
    ],
)
def test_names_that_are_two(one: str, other: str) -> None:
    assert normal(one) != normal(other)


WORDS = [
    *(
        "NA",
        "N/A",
        "n.a.",
        "#N/A",
        "<NA>",
        "nan",
        "NaN",
        "-nan",
        "None",
        "NULL",
        "(null)",
        "nil",
        "?",
        "??",
        "-",
    ),
    *("--", "–", "unknown", "Unknown", "unk", "undefined", "missing", "not available", "#VALUE!", "\u200b"),
]


@pytest.mark.parametrize("word", WORDS)
def test_words_for_what_is_not_there(tmp_path: Path, word: str) -> None:
    assert is_missing(word)
    dataset = table(tmp_path, ["a", "b"], ["x", word, "y"])
    assert dataset.groups.attributes == ("x", "y")
    assert [record.attribute for record in dataset.records] == [0, UNKNOWN, 1, 0, UNKNOWN, 1]
    assert dataset.notes == (f"where: {word!a} (2) count as unknown, as empty cells do",)
    with pytest.raises(MacError, match=r"m.csv, line 4: label is .*\(2 rows have none: ") as error:
        table(tmp_path, ["a", "b", word], ["x"])
    assert f"{word!a} (2)" in str(error.value)


def test_letters_may_differ_in_case_alone() -> None:
    letters = "0123456789ABab"
    assert distinct(letters, "classes", "m.csv") == tuple(letters)
    with pytest.raises(MacError, match=r"m.csv: values of sex differ in their spelling alone: 'F' .1. = 'f'"):
        distinct("FfMm", "values of sex", "m.csv")


def test_one_attribute_beside_unknown_ones_is_told_to_make_no_groups(tmp_path: Path) -> None:
    notes = table(tmp_path, ["a", "b"], ["glasses", "none"]).notes
    said = "as empty cells do, so there are no groups; if it is a value, spell it out"
    assert notes == (f"where: 'none' (3) count as unknown, {said}",)


@pytest.mark.parametrize(
    "word", ["no", "0", "north", "nana", "other", "empty", "+", "é", "😀", "a-", "in", "infinity"]
)
def test_words_that_are_values(word: str) -> None:
    assert not is_missing(word)


def test_empty_cells_are_unknown_without_a_word_and_no_classes(tmp_path: Path) -> None:
    assert table(tmp_path, ["a", "b"], ["x", ""]).notes == ()
    with pytest.raises(MacError, match=r"line 4: label is empty; give .* \(2 rows have none: empty \(2\)\)$"):
        table(tmp_path, ["a", "b", ""], ["x"])


def test_a_word_for_unknown_is_no_attribute_of_any_reader(tmp_path: Path) -> None:
    dataset = table(tmp_path, ["a", "b"], ["x", "y"])
    for attributes, message in (
        (("x", "unknown"), "an attribute is named unknown"),
        (("x", "x"), "attributes: the name 'x' is given twice; rename it"),
    ):
        with pytest.raises(MacError, match=message):
            Dataset(dataset.root, dataset.records, type(dataset.groups)(("a", "b"), attributes)).check()
