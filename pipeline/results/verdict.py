"""The verdict: is MaC better than ERM, and than the best other method that sees no more group labels?

Where no whole networks (JTT, MaskTune) are compared, it is the best other *last-layer* method. The verdict is
the first paragraph of the report, of the table of evaluate, and of the model card. It says what the interval
of each difference allows, and what the interval is over.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.metrics import SIGNS, Labels, prefer

Word = Literal["better than", "no better than", "worse than"]

ERM = "erm"  # its name among the methods
WHOLE_NETWORK = ("jtt", "masktune")  # methods of the second pipeline, each a model folder with metrics.json
OF_CLASSES = (
    "The worst class stands in place of the worst group: if the test images were collected as the training "
    "images were, this number cannot show the shortcut. A test split can show it if the attribute of all its "
    "images is known; some 50 images of each group are enough."
)
WIDE = 0.05  # a difference that matters: an interval that holds it with both signs leaves all open
_AMOUNTS = ("✗", "✓", "✓✓")  # of group labels, as signs, from none to most
_SPELLED = {
    "LLR": "plain last-layer retraining (LLR)",
    "CB-LLR": "class-balanced last-layer retraining (CB-LLR)",
}


@dataclass(frozen=True)
class Difference:
    """MaC minus another method on the test split, each the mean of its heads, paired.

    Attributes:
        title: the other method.
        mean: the difference of the worst-group (or worst-class) accuracies, in [-1, 1].
        low, high: the ends of its 95 % interval.
        mean_accuracy: the difference of the mean accuracies, in [-1, 1].
    """

    title: str
    mean: float
    low: float
    high: float
    mean_accuracy: float

    @property
    def word(self) -> Word:
        """What can be said of MaC: it is better or worse only if the whole interval is above or below 0."""
        if self.low > 0:
            return "better than"
        return "worse than" if self.high < 0 else "no better than"

    @property
    def wide(self) -> bool:
        """Whether little can be said: the interval reaches beyond 5 points on both sides of 0."""
        return self.low < -WIDE and self.high > WIDE


@dataclass(frozen=True)
class Part:
    """A part of a sentence; `emphasised` if it decides."""

    text: str
    emphasised: bool = False


@dataclass(frozen=True)
class Sentences:
    """The verdict in words; `str` joins them.

    Attributes:
        comparison: MaC against the others, in parts that follow one another.
        caution: what the comparison cannot show; empty if groups are known.
        basis: what the intervals are over.
        diagnosis: what the diagnosis says; empty if it is not to be said.
        lead: what MaC is here if it is no more than another method; empty if it is.
    """

    comparison: tuple[Part, ...]
    caution: str
    basis: str
    diagnosis: str = ""
    lead: str = ""

    def __str__(self) -> str:
        comparison = "".join(part.text for part in self.comparison)
        sentences = (self.lead, comparison, self.caution, self.basis, self.diagnosis)
        return " ".join(each for each in sentences if each)


def sentences(
    worst: str,
    found: Mapping[str, Difference],
    best: str | None,
    runs: int,
    diagnosis: str = "",
    lead: str = "",
) -> Sentences:
    """The verdict in words.

    Args:
        worst: `worst_group` or `worst_class`.
        found: MaC minus ERM and minus other methods, by name.
        best: the name of the best other method that sees no more group labels (`best_other`); None if there
            is none.
        runs: the number of ERM runs. The intervals are over test images; if it is more than 1, over runs too.
        diagnosis, lead: of `Sentences`.
    """
    erm = found[ERM]
    said = [Part(f"On the {worst.replace('_', ' ')} MaC is "), Part(erm.word, emphasised=True)]
    said.append(Part(f" ERM ({figures(erm, runs)})"))
    if best is None:
        said.append(Part(". No other method that sees as few group labels was fitted (baselines.methods)."))
    else:
        other = found[best]
        title = _SPELLED.get(other.title, other.title)
        kind = "method" if found.keys() & set(WHOLE_NETWORK) else "last-layer method"
        rest = f"the best other {kind} that sees no more group labels ({figures(other, runs)})."
        said += [Part(" and "), Part(other.word, emphasised=True), Part(f" {title}, {rest}")]
    caution = OF_CLASSES if worst == "worst_class" else ""
    return Sentences(tuple(said), caution, over(runs), diagnosis, lead)


def over(runs: int) -> str:
    """What the intervals are over, in one sentence.

    Args:
        runs: the number of ERM runs.
    """
    if runs == 1:
        return (
            "The intervals are over test images, for the heads of one ERM run: another run may differ "
            "(for several runs: 'dvc repro data/study/dvc.yaml')."
        )
    return f"The intervals are over {runs} ERM runs, and over test images."


def figures(found: Difference, runs: int) -> str:
    """`+23.1 points, 95 % 18.0 to 28.2; MaC's mean accuracy is 4.0 points higher`.

    Args:
        runs: as in `sentences`. It says what there is too little of if the interval is `wide`.
    """
    if found.mean == found.low == found.high == found.mean_accuracy == 0:
        return "no difference"
    interval = f"95 % {points(found.low)} to {points(found.high)}"
    if found.wide:
        interval += f": too few {'test images' if runs == 1 else 'runs'} to tell"
    return f"{more(found.mean)} points, {interval}; MaC's mean accuracy is {_compared(found.mean_accuracy)}"


def points(value: float) -> str:
    """A difference in [-1, 1] in points, to a tenth. What is not 0 has enough digits not to be read as 0."""
    exact = 100 * round(value, 9) + 0.0  # without rounding errors, and never minus zero
    said = f"{exact:.1f}"
    if exact and float(said) == 0:
        said = np.format_float_positional(exact, precision=1, fractional=False)
    return said.replace("-", "−")


def more(value: float) -> str:
    """The same with its sign."""
    said = points(value)
    return said if said.startswith("−") or said == "0.0" else f"+{said}"


def sees_no_more(labels: Labels, than: Labels) -> bool:
    """Whether a method sees no more group labels than another: ✗ is less than ✓, and ✓ than ✓✓."""
    return _AMOUNTS.index(SIGNS[labels]) <= _AMOUNTS.index(SIGNS[than])


def best_other(methods: Mapping[str, Mapping[str, Any]], labels: Labels, worst: str) -> str | None:
    """The name of the best other method that sees no more group labels than MaC; None if there is none.

    The best one has the highest accuracy in the worst group of the *test* split; if two are equal, the higher
    mean accuracy. MaC's own settings were chosen on the validation split, so this choice is one against MaC:
    the luckiest of its rivals stands for all of them.

    Args:
        methods: rows with `labels` and `test`, by name, as in the metrics.json of baselines.
        labels: the group labels that MaC sees.
        worst: `worst_group` or `worst_class`.
    """
    rivals = [name for name, row in methods.items() if name != ERM and sees_no_more(row["labels"], labels)]
    if not rivals:
        return None
    tests = [methods[name]["test"] for name in rivals]
    best = prefer([test[worst]["mean"] for test in tests], [test["raw_mean"]["mean"] for test in tests])
    return rivals[best]


def _compared(by: float) -> str:
    """How much higher or lower a mean accuracy is, in points."""
    said = f"{100 * abs(by):.1f}"
    return "the same" if said == "0.0" else f"{said} points {'higher' if by > 0 else 'lower'}"
