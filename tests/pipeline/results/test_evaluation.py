"""The verdict that metrics.json holds, in words."""

from typing import Any

from pipeline.results.evaluation import verdict_of
from pipeline.results.verdict import over

LLR = {"title": "LLR", "mean": -0.1, "low": -0.2, "high": -0.01, "mean_accuracy": 0.02}
DFR = {"title": "DFR", "mean": -0.2, "low": -0.3, "high": -0.1, "mean_accuracy": 0.0}
ERM = {"title": "ERM", "mean": 0.3, "low": 0.2, "high": 0.4, "mean_accuracy": -0.05}


def metrics(
    best: str | None, alpha: float | None, beta: float | None, worst: str = "worst_group"
) -> dict[str, Any]:
    """What the verdict reads of a metrics.json."""
    return {
        "erm": {"test": {worst: 0.5}},
        "setting": {"alpha": alpha, "beta": beta, "chosen_by": "params"},
        "compared": {"erm": ERM, "dfr": DFR, "llr": LLR},
        "best_other": best,
        "diagnosis": {"verdict": "fails", "dependence": "unknown"},
    }


def test_it_has_the_comparison_what_it_is_over_and_the_diagnosis() -> None:
    found = verdict_of(metrics("llr", 0.0, 2.0))
    diagnosis = "By the diagnosis, the method's assumption fails here."
    assert (found.lead, found.basis, found.diagnosis) == ("", over(1), diagnosis)
    comparison = (
        "On the worst group MaC is better than ERM (+30.0 points, 95 % 20.0 to 40.0; MaC's mean accuracy "
        "is 5.0 points lower) and worse than plain last-layer retraining (LLR), the best other last-layer "
        "method that sees no more group labels (−10.0 points, 95 % −20.0 to −1.0; MaC's mean accuracy is 2.0 "
        "points higher)."
    )
    assert "".join(part.text for part in found.comparison) == comparison
    assert [part.text for part in found.comparison if part.emphasised] == ["better than", "worse than"]
    assert str(found) == f"{comparison} {over(1)} {diagnosis}"


def test_heads_that_are_no_mac_are_named() -> None:
    kept = str(verdict_of(metrics(None, None, None)))
    assert kept.startswith("MaC keeps ERM's head as it is here. On the worst group MaC is better than ERM (")
    assert "No other method that sees as few group labels was fitted" in kept
    plain = str(verdict_of(metrics("dfr", 0.0, 0.0, "worst_class")))
    lead = "MaC is plain last-layer retraining here (α = β = 0). On the worst class MaC is better than ERM ("
    assert plain.startswith(lead)
    assert "and worse than DFR, the best other last-layer method" in plain
