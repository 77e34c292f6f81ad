from pipeline.errors import MacError


def test_an_error_is_one_line_whatever_a_file_put_into_it() -> None:
    assert (
        str(MacError("a.csv: label is 'x\ny\x1b[31m'; 15 × 3² …"))
        == "a.csv: label is 'x\\ny\\x1b[31m'; 15 × 3² …"
    )
