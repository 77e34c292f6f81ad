"""How the contents of an artefact are declared: the datasets of an HDF5 file, the tensors of a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")  # in the order of the codes 0, 1, 2
NAMES = ("classes", "attributes")  # the root attributes of an HDF5 file that are lists of names
LARGEST = 1e9  # the largest magnitude of a number that this method can have computed
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Codes:
    """Whole numbers that each stand for one of several things.

    Attributes:
        of: what they number: an axis of the same artefact, or one of NAMES; or `<artefact>/<axis>`, the axis
            of another artefact, which is compared when both are opened together.
        or_unknown: whether −1 may stand for what is not known.
        unique: whether each may be there only once.
        rising: whether each is above the one before.
    """

    of: str
    or_unknown: bool = False
    unique: bool = False
    rising: bool = False

    def problem(self, values: NDArray[Any], lengths: Mapping[str, int]) -> str:
        """What is wrong with some values; empty if nothing is.

        Args:
            lengths: the lengths of axes, by name; one that is not known is not compared.
        """
        lowest, most = -1 if self.or_unknown else 0, lengths.get(self.of, np.iinfo(np.int32).max)
        if values.min() < lowest or values.max() >= most:
            return f"has {_odd(values, lowest, most - 1)}, expected {lowest} to {most - 1} ({self.of})"
        if self.unique and len(np.unique(values)) < values.size:
            return "has the same number twice"
        if self.rising and (np.diff(values) <= 0).any():
            return "has numbers that are not in rising order"
        return ""


@dataclass(frozen=True)
class Offsets:
    """Where the parts of an axis begin, none of them empty, and where the last one ends.

    Attributes:
        of: the axis that is in parts.
    """

    of: str

    def problem(self, values: NDArray[Any], lengths: Mapping[str, int]) -> str:
        """What is wrong with all the values; empty if nothing is.

        Args:
            lengths: the lengths of axes, by name; without that of `of`, the end is not compared.
        """
        first, last = int(values[0]), int(values[-1])
        if first != 0 or last != lengths.get(self.of, last):
            return f"goes from {first} to {last}, expected 0 to {lengths.get(self.of, last)} ({self.of})"
        return "" if (values[1:] > values[:-1]).all() else "has numbers that are not in rising order"


@dataclass(frozen=True)
class Batches:
    """The batch of each position in each draw: 0, 1, …. The batches of all draws have the same sizes."""

    def problem(self, values: NDArray[Any]) -> str:
        """What is wrong with all the values, (draws, positions); empty if nothing is."""
        numbers = np.sort(values, axis=1)
        first = numbers[0]
        if first[0] != 0 or (np.diff(first) > 1).any():
            return "has batches that are not numbered 0, 1, …"
        return "" if (numbers == first).all() else "has draws with batches of other sizes"


@dataclass(frozen=True)
class Orders:
    """An order of all positions in each draw, batch after batch.

    Attributes:
        of: the axis of the positions.
        batches: the dataset that has the batch of each position in each draw.
    """

    of: str
    batches: str

    def problem(self, values: NDArray[Any], lengths: Mapping[str, int]) -> str:
        """What is wrong with all the values, (draws, positions); empty if nothing is.

        Args:
            lengths: the lengths of axes, by name; without that of the positions, there are as many as places.
        """
        positions = np.arange(lengths.get(self.of, values.shape[1]))
        if values.shape[1] == len(positions) and (np.sort(values, axis=1) == positions).all():
            return ""
        return f"has a draw that does not have each {self.of} once"

    def contradiction(self, values: NDArray[Any], batch: NDArray[Any]) -> str:
        """What is wrong with possible orders, (draws, positions), of such batches; empty if nothing is."""
        in_order = np.take_along_axis(batch, values, axis=1)
        return "" if (np.diff(in_order) >= 0).all() else f"is not in the order of '{self.batches}'"


@dataclass(frozen=True)
class Between:
    """Numbers from `low` to `high`."""

    low: float
    high: float

    def problem(self, values: NDArray[Any]) -> str:
        """What is wrong with some values; empty if nothing is."""
        if values.min() >= self.low - _ROUNDING and values.max() <= self.high + _ROUNDING:
            return ""
        return f"has {_odd(values, self.low, self.high)}, expected {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Field:
    """A dataset of an HDF5 artefact, or a tensor.

    Attributes:
        dtype: NumPy dtype, or `utf-8` for strings. All values are read in it.
        dims: names of the axes. In a file, axes with the same name have the same length. A number is a fixed
            length.
        about: what it holds, in one line.
        layout: `contiguous`; or `gzip`: one compressed chunk for each row.
        optional: whether it may be absent.
        values: the values that it may have; None for all of its dtype. Floating-point numbers are finite, and
            no larger than LARGEST, in any case.
        empty: whether it may have no rows.
        half: whether a file may have its values in float16 instead.
        encoded: the group that a file may have instead, in which the picture of each row is encoded
            (`store.encoded`); empty for none.
    """

    dtype: str
    dims: tuple[str | int, ...]
    about: str
    layout: str = "contiguous"
    optional: bool = False
    values: Codes | Offsets | Batches | Orders | Between | None = None
    empty: bool = False
    half: bool = False
    encoded: str = ""

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes that its values may have in a file."""
        return (self.dtype, "float16") if self.half else (self.dtype,)

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of its axes; one of a fixed length has the channels of an image."""
        return tuple(dim if isinstance(dim, str) else "channel" for dim in self.dims)

    @property
    def checked_at_once(self) -> bool:
        """Whether `problem` needs all values together."""
        if isinstance(self.values, Codes):
            return self.values.unique or self.values.rising
        return isinstance(self.values, Offsets | Batches | Orders)

    def misfit(self, shape: tuple[int, ...], lengths: dict[str, int]) -> str:
        """What is wrong with a shape of the right number of axes; empty if nothing is.

        Args:
            lengths: the lengths of the axes that were seen so far, by name; those of this field are added.
        """
        for axis, (dim, length) in enumerate(zip(self.dims, shape, strict=True)):
            if length == 0 and not (self.empty and axis == 0):
                return f"is empty along '{dim}'"
            expected = dim if isinstance(dim, int) else lengths.setdefault(dim, length)
            if length != expected:
                return f"has {length} along '{dim}', expected {expected}"
        return ""

    def problem(self, values: NDArray[Any], lengths: Mapping[str, int]) -> str:
        """What is wrong with some of its values, one or more; empty if nothing is.

        Args:
            lengths: the lengths of axes, by name.
        """
        if values.dtype.kind == "b" and values.view(np.uint8).max() > 1:
            return "has a truth value that is neither 0 nor 1"
        if values.dtype.kind == "f" and not (
            float(values.min()) >= -LARGEST and float(values.max()) <= LARGEST
        ):
            return f"has {_odd(values, -LARGEST, LARGEST)}, expected finite numbers up to {LARGEST:g}"
        if values.dtype.kind == "S":
            return _undecodable(values)
        if isinstance(self.values, Codes | Offsets | Orders):
            return self.values.problem(values, lengths)
        return "" if self.values is None else self.values.problem(values)


def _odd(values: NDArray[Any], low: float, high: float) -> object:
    """The first value outside of a range."""
    flat = values.reshape(-1)
    return flat[int(np.argmin((flat >= low) & (flat <= high)))]


def _undecodable(values: NDArray[Any]) -> str:
    try:
        for value in values.reshape(-1).tolist():
            value.decode()
    except UnicodeDecodeError:
        return "has a text that is not UTF-8"
    return ""


Schema = Mapping[str, Field]
