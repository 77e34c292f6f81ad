"""The verdict says what the intervals allow, and no more."""

import pytest

from pipeline.metrics import SIGNS, Labels
from pipeline.results.verdict import (
    OF_CLASSES,
    Difference,
    best_other,
    more,
    points,
    sees_no_more,
    sentences,
)

ERM_BETTER = Difference("ERM", 0.2314, 0.18, 0.282, 0.0421)
BETTER = "better than ERM (+23.1 points, 95 % 18.0 to 28.2; MaC's mean accuracy is 4.2 points higher)"
BEST = "the best other last-layer method that sees no more group labels"
ONE_RUN = (
    "The intervals are over test images, for the heads of one ERM run: another run may differ "
    "(for several runs: 'dvc repro data/study/dvc.yaml')."
)


def of(title: str, mean: float, low: float, high: float, mean_accuracy: float) -> Difference:
    return Difference(title, mean, low, high, mean_accuracy)


@pytest.mark.parametrize(
    ("erm", "best", "said"),
    [
        (
            ERM_BETTER,
            of("AFR", 0.051, 0.012, 0.0888, 0.0004),
            f"{BETTER} and better than AFR, {BEST} (+5.1 points, 95 % 1.2 to 8.9; MaC's mean accuracy is "
            "the same).",
        ),
        (
            ERM_BETTER,
            of("LLR", -0.012, -0.04, 0.019, -0.04),
            f"{BETTER} and no better than plain last-layer retraining (LLR), {BEST} (−1.2 points, "
            "95 % −4.0 to 1.9; MaC's mean accuracy is 4.0 points lower).",
        ),
        (
            ERM_BETTER,
            of("CB-LLR", -0.06, -0.11, -0.0001, 0.01),
            f"{BETTER} and worse than class-balanced last-layer retraining (CB-LLR), {BEST} (−6.0 points, "
            "95 % −11.0 to −0.01; MaC's mean accuracy is 1.0 points higher).",
        ),
        (
            of("ERM", 0.0, 0.0, 0.0, 0.0),
            of("LLR", -0.25, -0.3, -0.2, -0.1),
            f"no better than ERM (no difference) and worse than plain last-layer retraining (LLR), {BEST} "
            "(−25.0 points, 95 % −30.0 to −20.0; MaC's mean accuracy is 10.0 points lower).",
        ),
        (
            of("ERM", -0.1, -0.15, -0.05, 0.02),
            of("LLR", 0.0, 0.0, 0.0, 0.0),
            "worse than ERM (−10.0 points, 95 % −15.0 to −5.0; MaC's mean accuracy is 2.0 points higher) and "
            f"no better than plain last-layer retraining (LLR), {BEST} (no difference).",
        ),
        (
            of("ERM", 0.06, 0.0001, 0.12, 0.0),
            of("LLR", 0.01, -0.08, 0.1, 0.0),
            "better than ERM (+6.0 points, 95 % 0.01 to 12.0; MaC's mean accuracy is the same) and no better "
            f"than plain last-layer retraining (LLR), {BEST} (+1.0 points, 95 % −8.0 to 10.0: too few test "
            "images to tell; MaC's mean accuracy is the same).",
        ),
        (
            of("ERM", 0.01, 0.0, 0.02, -0.001),
            None,
            "no better than ERM (+1.0 points, 95 % 0.0 to 2.0; MaC's mean accuracy is 0.1 points lower). No "
            "other method that sees as few group labels was fitted (baselines.methods).",
        ),
    ],
)
def test_each_sentence_of_one_run(erm: Difference, best: Difference | None, said: str) -> None:
    found = {"erm": erm} if best is None else {"erm": erm, "best": best}
    sentence = str(sentences("worst_group", found, None if best is None else "best", 1))
    assert sentence == f"On the worst group MaC is {said} {ONE_RUN}"


@pytest.mark.parametrize("name", ["jtt", "masktune"])
def test_only_where_whole_networks_are_compared_the_best_is_the_best_of_all(name: str) -> None:
    found = {"erm": ERM_BETTER, "llr": of("LLR", 0.1, 0.05, 0.2, 0.0), name: of("other", 0.3, 0.2, 0.4, 0.0)}
    of_all = "plain last-layer retraining (LLR), the best other method that sees no more group labels (+10.0"
    assert of_all in str(sentences("worst_group", found, "llr", 1))
    del found[name]
    assert f"plain last-layer retraining (LLR), {BEST} (+10.0" in str(
        sentences("worst_group", found, "llr", 1)
    )


def test_several_runs_and_classes_and_the_diagnosis() -> None:
    wide = of("LLR", 0.0, -0.06, 0.06, 0.0)
    found = str(sentences("worst_class", {"erm": ERM_BETTER, "llr": wide}, "llr", 5, "It says this."))
    assert found.startswith("On the worst class MaC is better than ERM (")
    assert "95 % −6.0 to 6.0: too few runs to tell;" in found
    over = " The intervals are over 5 ERM runs, and over test images."
    assert found.endswith(f" {OF_CLASSES}{over} It says this.")
    assert OF_CLASSES not in str(sentences("worst_group", {"erm": ERM_BETTER}, None, 5))


@pytest.mark.parametrize(
    ("low", "high", "wide"),
    [(-0.06, 0.06, True), (-0.04, 0.3, False), (-0.3, 0.04, False), (0.06, 0.3, False)],
)
def test_an_interval_is_wide_if_it_leaves_both_open(low: float, high: float, wide: bool) -> None:
    assert of("LLR", 0.0, low, high, 0.0).wide == wide


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0.0"),
        (-1e-17, "0.0"),  # a rounding error
        (-0.0004, "−0.04"),
        (0.0000012, "+0.0001"),
        (-0.0006, "−0.1"),
        (0.1234, "+12.3"),
        (-0.1, "−10.0"),
    ],
)
def test_only_nothing_is_said_to_be_0(value: float, said: str) -> None:
    assert more(value) == said
    assert points(value) == said.removeprefix("+")


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.01, 0.2, "better than"),
        (0.0, 0.2, "no better than"),
        (-0.1, 0.1, "no better than"),
        (-0.2, 0.0, "no better than"),
        (-0.2, -0.01, "worse than"),
    ],
)
def test_the_word_is_by_the_interval_alone(low: float, high: float, word: str) -> None:
    assert of("LLR", 0.5, low, high, 0.9).word == word


def row(labels: Labels, worst: float, mean: float) -> dict[str, object]:
    return {"labels": labels, "test": {"worst_group": {"mean": worst}, "raw_mean": {"mean": mean}}}


def test_the_best_other_method_sees_no_more_group_labels() -> None:
    methods = {
        "erm": row("none", 0.99, 0.99),
        "llr": row("validation, to choose", 0.7, 0.9),
        "afr": row("validation, to choose", 0.7, 0.91),
        "masktune": row("none", 0.6, 0.95),
        "dfr": row("validation, to train", 0.9, 0.95),
    }
    assert best_other(methods, "validation, to choose", "worst_group") == "afr"
    assert best_other(methods, "none", "worst_group") == "masktune"
    assert best_other(methods, "training, to train", "worst_group") == "dfr"
    assert best_other({"erm": methods["erm"]}, "none", "worst_group") is None


def test_the_order_of_the_labels() -> None:
    amount = {"✗": 0, "✓": 1, "✓✓": 2}
    for one, sign in SIGNS.items():
        for other, than in SIGNS.items():
            assert sees_no_more(one, other) == (amount[sign] <= amount[than])
