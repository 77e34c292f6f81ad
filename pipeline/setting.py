"""What MaC's heads can be fitted with, by `retrain` or by `sweep`."""

from typing import Literal, NamedTuple

Number = float | Literal["auto"]  # a number, which is used as it is, or what stage sweep picks


class Setting(NamedTuple):
    """Weights of the views, and the strength of the L2 penalty where stage sweep picks it."""

    alpha: float
    beta: float
    l2: float | None = None

    def strength(self, l2: Number) -> float:
        """The strength of the penalty: the setting's own, or else the number in retrain.l2."""
        return float(l2 if self.l2 is None else self.l2)
