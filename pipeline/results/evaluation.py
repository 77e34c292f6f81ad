"""The metrics.json of evaluate in words, as stage evaluate and `mac inspect` print it.

It is apart from `pipeline.results.tables`, so that no other stage depends on the words of the verdict.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.results import diagnosis_table, diagnosis_words, tables, verdict
from pipeline.results.verdict import Difference, Sentences


def in_words(metrics: Mapping[str, Any], reason: str = "") -> str:
    """All of metrics.json as text: the verdict, the table, and the diagnosis.

    Args:
        reason: as in `tables.of_metrics`.
    """
    paragraphs = (
        str(verdict_of(metrics)),
        tables.of_metrics(metrics, reason),
        diagnosis_table.in_words(metrics["diagnosis"]),
    )
    return "\n\n".join(paragraphs)


def verdict_of(metrics: Mapping[str, Any]) -> Sentences:
    """The verdict on one ERM run, in words.

    Args:
        metrics: metrics.json of evaluate.
    """
    found = {name: Difference(**values) for name, values in metrics["compared"].items()}
    worst, _ = tables.worst_of(metrics["erm"]["test"])
    diagnosis = diagnosis_words.in_short(metrics["diagnosis"])
    alpha, beta = (metrics["setting"][name] for name in ("alpha", "beta"))
    lead = ""
    if alpha is None:
        lead = "MaC keeps ERM's head as it is here."
    elif alpha == beta == 0:
        lead = "MaC is plain last-layer retraining here (α = β = 0)."
    return verdict.sentences(worst, found, metrics["best_other"], runs=1, diagnosis=diagnosis, lead=lead)
