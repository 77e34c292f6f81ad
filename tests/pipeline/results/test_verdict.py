"""The verdict says what the intervals allow, and no more."""

import pytest

from pipeline.metrics import SIGNS, Labels
from pipeline.results.verdict import Difference, best_other, paragraph, sees_no_more

ERM_BETTER = Difference("ERM", 0.2314, 0.18, 0.282, 0.0421)
BETTER = "better than ERM (+23.1 points, 95 % 18.0 to 28.2; its mean accuracy is 4.2 points lower)"
BEST = "the best other method that sees no more group labels"
ONE_RUN = (
    "The intervals are over test images, for the heads of one ERM run: another run may differ (mac study)."
)


def of(title: str, mean: float, low: float, high: float, mean_accuracy: float) -> Difference:
    return Difference(title, mean, low, high, mean_accuracy)


@pytest.mark.parametrize(
    ("erm", "best", "said"),
    [
        (
            ERM_BETTER,
            of("AFR", 0.051, 0.012, 0.0888, 0.0004),
            f"{BETTER} and better than AFR, {BEST} (+5.1 points, 95 % 1.2 to 8.9; its mean accuracy is the "
            "same).",
        ),
        (
            ERM_BETTER,
            of("LLR", -0.012, -0.04, 0.019, -0.04),
            f"{BETTER} and no better than plain last-layer retraining (LLR), {BEST} (−1.2 points, "
            "95 % −4.0 to 1.9; its mean accuracy is 4.0 points higher).",
        ),
        (
            ERM_BETTER,
            of("CB-LLR", -0.06, -0.11, -0.0001, 0.01),
            f"{BETTER} and worse than class-balanced last-layer retraining (CB-LLR), {BEST} (−6.0 points, "
            "95 % −11.0 to 0.0; its mean accuracy is 1.0 points lower).",
        ),
        (
            of("ERM", 0.0, 0.0, 0.0, 0.0),
            of("LLR", -0.25, -0.3, -0.2, -0.1),
            f"no better than ERM (no difference) and worse than plain last-layer retraining (LLR), {BEST} "
            "(−25.0 points, 95 % −30.0 to −20.0; its mean accuracy is 10.0 points higher).",
        ),
        (
            of("ERM", -0.1, -0.15, -0.05, 0.02),
            of("LLR", 0.0, 0.0, 0.0, 0.0),
            "worse than ERM (−10.0 points, 95 % −15.0 to −5.0; its mean accuracy is 2.0 points lower) and no "
            f"better than plain last-layer retraining (LLR), {BEST} (no difference).",
        ),
        (
            of("ERM", 0.01, 0.0, 0.02, -0.001),
            None,
            "no better than ERM (+1.0 points, 95 % 0.0 to 2.0; its mean accuracy is 0.1 points higher). No "
            "other method that sees as few group labels was fitted (baselines.methods).",
        ),
    ],
)
def test_each_sentence_of_one_run(erm: Difference, best: Difference | None, said: str) -> None:
    assert paragraph("worst_group", erm, best, 1) == f"On the worst group MaC is {said} {ONE_RUN}"


def test_several_runs_and_classes_and_the_diagnosis() -> None:
    found = paragraph("worst_class", ERM_BETTER, None, 5, "The diagnosis says this.")
    assert found.startswith("On the worst class MaC is better than ERM (")
    over = " The intervals are over 5 ERM runs, and over test images."
    assert found.endswith(f"{over} The diagnosis says this.")


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
