import pytest

from pipeline.errors import LONGEST, MacError, first_line, printable, quoted


def test_the_first_line_of_a_message_has_words() -> None:
    assert first_line(ValueError("\n  no such layer\nelse")) == "no such layer"
    assert first_line(ValueError("\n")) == "ValueError"


def test_an_error_is_one_line_whatever_a_file_put_into_it() -> None:
    assert (
        str(MacError("a.csv: label is 'x\ny\x1b[31m'; 15 × 3² …"))
        == "a.csv: label is 'x\\ny\\x1b[31m'; 15 × 3² …"
    )


@pytest.mark.parametrize("filling", ["x", "\x1b", "\U000e0001", "名"])
def test_a_long_message_keeps_where_it_is_and_what_to_do(filling: str) -> None:
    message = str(MacError(f"a.csv: {filling * 3_000_000}; remove it"))
    assert len(message) <= LONGEST
    assert message.startswith("a.csv: ")
    assert message.endswith("; remove it")


def test_what_is_no_visible_character_is_escaped() -> None:
    assert printable("chien é 犬 $&") == "chien é 犬 $&"
    assert printable("a\x1b]0;b\x07c\x9bd\u202ee\r\udcfff") == "a\\x1b]0;b\\x07c\\x9bd\\u202ee\\r\\udcfff"
    assert printable("a\tb\nc\x7f", kept="\n") == "a\\tb\nc\\x7f"


def test_a_value_is_quoted_in_short() -> None:
    assert [quoted(value) for value in (1.5, "x", [1, 2], None, True)] == [
        "1.5",
        "'x'",
        "[1, 2]",
        "None",
        "True",
    ]
    bomb: object = "lol"
    for _ in range(60):
        bomb = [bomb] * 10
    for value in (bomb, {"a": bomb}, "x" * 10**6, b"x" * 10**6, 10**5000, list(range(10**6))):
        assert len(quoted(value)) <= 200
