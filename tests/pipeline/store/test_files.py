import csv
from pathlib import Path

from pipeline import store


def test_a_csv_cell_may_hold_anything(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "val_gull, grey": 0.1}, {"epoch": 'a "b"\nc', "val_gull, grey": float("nan")}]
    store.write_csv(tmp_path / "x.csv", rows)
    with (tmp_path / "x.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert found == [{key: str(value) for key, value in row.items()} for row in rows]
