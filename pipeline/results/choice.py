"""Which α and β MaC's heads are fitted with, and why; or that ERM's head stays as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from pipeline.metrics import Accuracy, better
from pipeline.project import Opened
from pipeline.selection import SPOKEN, SPOKEN_MEAN

if TYPE_CHECKING:
    from pipeline.params.selection import Criterion
    from pipeline.results.judgement import Verdict

Setting = tuple[float, float] | None  # (α, β); None is ERM as it is: its head is not retrained

ERM = "ERM as it is"
NOT_RETRAINED = f"{ERM}: validation prefers no retraining"
FAILS = f"{ERM}: the diagnosis says that the method's assumption fails here"


@dataclass(frozen=True)
class Choice:
    """The setting of MaC's heads.

    Attributes:
        alpha, beta: the weights of the views; both None for ERM as it is.
        chosen_by: `params`: params.yaml has the numbers; `sweep`: it says auto.
        reason: a sentence that says why, without a full stop.
    """

    alpha: float | None
    beta: float | None
    chosen_by: Literal["params", "sweep"]
    reason: str

    @classmethod
    def by_params(cls, alpha: float, beta: float) -> "Choice":
        """The numbers of params.yaml."""
        return cls(alpha, beta, "params", said({"alpha": alpha, "beta": beta, "chosen_by": "params"}))

    @classmethod
    def by_sweep(cls, given: Opened) -> "Choice":
        """What stage sweep picked.

        Args:
            given: sweep.

        Raises:
            MacError: its metrics.json does not say it.
        """
        alpha, beta, reason = (given.stated("sweep", name) for name in ("alpha", "beta", "reason"))
        return cls(alpha, beta, "sweep", reason)

    @classmethod
    def of_retrained(cls, given: Opened) -> "Choice":
        """The setting that the heads in retrained/ have.

        Args:
            given: retrained.

        Raises:
            MacError: its model.json does not say it.
        """
        return cls(**{each.name: given.stated("retrained", each.name) for each in fields(cls)})

    @property
    def setting(self) -> Setting:
        """(α, β), or None for ERM as it is."""
        return None if self.alpha is None or self.beta is None else (self.alpha, self.beta)

    @property
    def values(self) -> dict[str, float | str | None]:
        """For metrics.json: α, β, and what chose them."""
        return {"alpha": self.alpha, "beta": self.beta, "chosen_by": self.chosen_by}


def named(setting: Setting) -> str:
    """A setting in words."""
    if setting is None:
        return ERM
    alpha, beta = setting
    if alpha == beta == 0:
        return "α = β = 0 (plain last-layer retraining)"
    return f"α = {alpha:g}, β = {beta:g}"


def said(values: Mapping[str, Any]) -> str:
    """`Choice.values` in words."""
    by = {"params": "set in params.yaml", "sweep": "picked by stage sweep"}[values["chosen_by"]]
    return f"{by}: {named(None if values['alpha'] is None else (values['alpha'], values['beta']))}"


def picked(
    settings: Sequence[Setting],
    worst: Accuracy,
    mean: Accuracy,
    best: int,
    criterion: "Criterion",
    verdict: "Verdict | None",
) -> tuple[int, str]:
    """The index of the setting that stage sweep picks, and a sentence that says why.

    Groups compare ERM as it is with the best pair. The other criteria cannot: they weigh what ERM itself gets
    wrong, or see the majority of a class alone. They compare pairs only; where the method's assumption fails,
    ERM stays as it is.

    Args:
        settings: the candidates: None, (0, 0), and the other pairs.
        worst, mean: (n,) their worst and mean accuracies on the validation split, by the criterion.
        best: the index of the best pair by `metrics.prefer`.
        verdict: of the diagnosis; None if groups choose, which do without it.
    """
    by, over = SPOKEN[criterion], 0 if criterion == "groups" else 1  # over ERM, or over (0, 0)
    if criterion == "groups" and not better(worst[best], mean[best], worst[0], mean[0]):
        erm, other = (f"{100 * worst[k]:.1f} / {100 * mean[k]:.1f} %" for k in (0, best))
        with_best = f"with the best α and β, {named(settings[best])}, {other}"
        return 0, f"{NOT_RETRAINED} ({by} / mean {erm}; {with_best})"
    if criterion != "groups" and verdict == "fails":
        return 0, f"{FAILS} ({criterion} cannot judge ERM itself)"
    points = f"{100 * (worst[best] - worst[over]):.1f} points"
    if worst[best] == worst[over]:
        points = f"{100 * (mean[best] - mean[over]):.1f} points of the {SPOKEN_MEAN[criterion]}"
    than = f"by {points} over {named(settings[over])}" if best != over else "to every other pair"
    limit = "; it cannot judge ERM itself" if over else ""
    return best, f"validation ({by}) prefers {named(settings[best])} {than}{limit}"
