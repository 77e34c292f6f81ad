"""Which α, β and l2 MaC's heads are fitted with, and why; or that ERM's head stays as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from pipeline.metrics import Accuracy, better
from pipeline.project import Opened
from pipeline.selection import SPOKEN, SPOKEN_MEAN
from pipeline.setting import NumberOrAuto, Setting

if TYPE_CHECKING:
    from pipeline.params.selection import Criterion
    from pipeline.results.judgement import Dependence, Verdict

Candidate = Setting | None  # None is ERM as it is: its head is not retrained
Reasoned = tuple[Candidate, str]  # what is picked, and a sentence that says why

ERM = "ERM as it is"
NOT_RETRAINED = f"{ERM}: validation prefers no retraining"
FAILS = f"{ERM}: the diagnosis says that the method's assumption fails here"
OF_GROUP = "test_of_"  # and the name of a group: columns of sweep/groups.csv


@dataclass(frozen=True)
class Choice:
    """The setting of MaC's heads.

    Attributes:
        alpha, beta: the weights of the views; both None for ERM as it is.
        l2: the strength of the penalty; None for ERM as it is, if l2 was to be picked.
        chosen_by: `params`: params.yaml has the numbers; `sweep`: α and β are auto; `sweep_l2`: l2 too.
        reason: a sentence that says why, without a full stop.
    """

    alpha: float | None
    beta: float | None
    l2: float | None
    chosen_by: Literal["params", "sweep", "sweep_l2"]
    reason: str

    @classmethod
    def by_params(cls, alpha: float, beta: float, l2: float) -> "Choice":
        """The numbers of params.yaml."""
        return cls(alpha, beta, l2, "params", said({"alpha": alpha, "beta": beta, "chosen_by": "params"}))

    @classmethod
    def by_sweep(cls, given: Opened, l2: NumberOrAuto) -> "Choice":
        """What stage sweep picked.

        Args:
            given: sweep.
            l2: retrain.l2. A number is used as it is.

        Raises:
            MacError: its metrics.json does not say it.
        """
        alpha, beta, reason = (given.stated("sweep", name) for name in ("alpha", "beta", "reason"))
        if l2 == "auto":
            return cls(alpha, beta, given.stated("sweep", "l2"), "sweep_l2", reason)
        return cls(alpha, beta, l2, "sweep", reason)

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
    def setting(self) -> Candidate:
        """The setting, with l2 if it was picked; or None for ERM as it is."""
        if self.alpha is None or self.beta is None:
            return None
        return Setting(self.alpha, self.beta, self.l2 if self.chosen_by == "sweep_l2" else None)

    @property
    def numbers(self) -> dict[str, float]:
        """What the heads were fitted with, by name: the setting, without l2 where it was not picked."""
        named = self.setting._asdict() if self.setting else {}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def values(self) -> dict[str, float | str | None]:
        """For metrics.json: α, β, l2 if it was to be picked, and what chose them."""
        names = names_of(l2=self.chosen_by == "sweep_l2")
        return {name: getattr(self, name) for name in (*names, "chosen_by")}


def names_of(l2: bool) -> tuple[str, ...]:
    """The names of what a setting has: `alpha`, `beta`, and `l2` where it is picked."""
    return Setting._fields if l2 else Setting._fields[:2]


def named(candidate: Candidate) -> str:
    """A candidate in words."""
    if candidate is None:
        return ERM
    alpha, beta, l2 = candidate
    penalty = "" if l2 is None else f", l2 = {l2:g}"
    if alpha == beta == 0:
        return f"α = β = 0{penalty} (plain last-layer retraining)"
    return f"α = {alpha:g}, β = {beta:g}{penalty}"


def said(values: Mapping[str, Any]) -> str:
    """`Choice.values` in words."""
    by = "set in params.yaml" if values["chosen_by"] == "params" else "picked by stage sweep"
    if values["alpha"] is None:
        return f"{by}: {ERM}"
    return f"{by}: {named(Setting(values['alpha'], values['beta'], values.get('l2')))}"


def by_criterion(
    settings: Sequence[Setting],
    worst: Accuracy,
    mean: Accuracy,
    best: int,
    plain: int,
    criterion: "Criterion",
    verdict: "Verdict | None",
) -> Reasoned:
    """What the criterion picks, and a sentence that says why.

    Groups compare ERM as it is with the best setting. The other criteria cannot: they weigh what ERM itself
    gets wrong, or see the majority of a class alone. They compare settings only; where the method's
    assumption fails, ERM stays as it is.

    Args:
        settings: K settings.
        worst, mean: (1 + K,) worst and mean accuracies on the validation split, by the criterion: of ERM, and
            of each setting.
        best: the index of the best setting by `metrics.prefer`.
        plain: the index of the best one with α = β = 0.
        verdict: of the diagnosis; None if groups choose, which do without it.
    """
    setting, of_best, of_plain = settings[best], 1 + best, 1 + plain
    by, over = SPOKEN[criterion], 0 if criterion == "groups" else of_plain
    has_l2 = setting.l2 is not None
    what, any_other = ("α, β and l2", "setting") if has_l2 else ("α and β", "pair")
    if criterion == "groups" and not better(worst[of_best], mean[of_best], worst[0], mean[0]):
        erm, other = (f"{100 * worst[k]:.1f} / {100 * mean[k]:.1f} %" for k in (0, of_best))
        with_best = f"with the best {what}, {named(setting)}, {other}"
        return None, f"{NOT_RETRAINED} ({by} / mean {erm}; {with_best})"
    if criterion != "groups" and verdict == "fails":
        return None, f"{FAILS} ({criterion} cannot judge ERM itself)"
    points = f"{100 * (worst[of_best] - worst[over]):.1f} points"
    if worst[of_best] == worst[over]:
        points = f"{100 * (mean[of_best] - mean[over]):.1f} points of the {SPOKEN_MEAN[criterion]}"
    than = f"by {points} over {named(settings[plain] if over else None)}"
    if of_best == over:
        than = f"to every other {any_other}"
    limit = "; it cannot judge ERM itself" if over else ""
    return setting, f"validation ({by}) prefers {named(setting)} {than}{limit}"


def by_diagnosis(default: Setting, plain: Setting, verdict: "Verdict", dependence: "Dependence") -> Reasoned:
    """What the diagnosis picks, and a sentence that says why.

    Where the method's assumption fails, ERM stays as it is. The intervention is to repair a dependence on the
    background: where ERM has one, it is the default setting; where none is shown, or none can be measured,
    plain retraining.
    """
    if verdict == "fails":
        return None, FAILS
    if dependence == "depends":
        why = f"{named(default)}, the default: the diagnosis says that ERM depends on the background"
        return default, why
    why = "does not show that ERM depends on the background"
    if dependence == "unknown":
        why = "could not measure whether ERM depends on the background"
    return plain, f"{named(plain)}: the diagnosis {why}"
