from pathlib import Path

import pytest

from pipeline.errors import MacError
from pipeline.made_with import require_made_with

WANTED = {"retrain": {"lr": 0.1, "epochs": 3}, "dataset.name": "folder"}


def said(stated: dict[str, object], whole: bool) -> str:
    with pytest.raises(MacError) as error:
        require_made_with(Path("run"), stated, WANTED, "run 'mac x'", whole)
    return str(error.value)


def test_the_first_other_parameter_is_named_with_both_values() -> None:
    stated = {"retrain": {"lr": 0.1, "epochs": 4}, "dataset.name": "demo"}
    for whole in (False, True):
        assert said(stated, whole) == (
            "run: was made with other retrain.epochs (4) than params.yaml has (3); run 'mac x'"
        )


@pytest.mark.parametrize(
    ("stated", "other"),
    [
        ({"retrain": {"lr": 0.1, "epochs": 3}}, "dataset.name (nothing) than params.yaml has (folder)"),
        ({**WANTED, "retrain": 7}, "retrain.lr (nothing) than params.yaml has (0.1)"),
        ({**WANTED, "sweep": {"seeds": 3}}, "sweep.seeds (3) than params.yaml has (nothing)"),
    ],
)
def test_what_only_one_has_counts_if_all_is_to_be_stated(stated: dict[str, object], other: str) -> None:
    require_made_with(Path("run"), stated, WANTED, "run 'mac x'")
    assert other in said(stated, whole=True)
