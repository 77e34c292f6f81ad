"""The metrics.json of evaluate in words, as stage evaluate and `mac inspect` print it.

It is apart from `pipeline.results.tables`, so that no other stage depends on the words of the verdict.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.results import diagnosis_table, judgement, tables, verdict
from pipeline.results.verdict import ERM, Difference


def in_words(metrics: Mapping[str, Any], reason: str = "") -> str:
    """All of metrics.json as text: the verdict, the table, and the diagnosis.

    Args:
        reason: as in `tables.of_metrics`.
    """
    paragraphs = (
        " ".join(verdict_of(metrics)),
        tables.of_metrics(metrics, reason),
        diagnosis_table.in_words(metrics["diagnosis"]),
    )
    return "\n\n".join(paragraphs)


def verdict_of(metrics: Mapping[str, Any]) -> list[str]:
    """The verdict on one ERM run, in sentences.

    Args:
        metrics: metrics.json of evaluate.
    """
    found = {name: Difference(**values) for name, values in metrics["compared"].items()}
    best = found[metrics["best_other"]] if metrics["best_other"] else None
    worst, _ = tables.worst_of(metrics["erm"]["test"])
    diagnosis = judgement.in_short(metrics["diagnosis"])
    lines = verdict.sentences(worst, found[ERM], best, runs=1, diagnosis=diagnosis)
    alpha, beta = (metrics["setting"][name] for name in ("alpha", "beta"))
    if alpha is None:
        lines.insert(0, "MaC keeps ERM's head as it is here.")
    elif alpha == beta == 0:
        lines.insert(0, "MaC is plain last-layer retraining here (α = β = 0).")
    return lines
