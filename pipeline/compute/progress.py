"""Progress of long work: a bar on a terminal; without a terminal, a log line every 30 seconds."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
LOG_EVERY = 30.0  # seconds between log lines if there is no terminal

log = logging.getLogger("mac")


class Progress:
    """Counts the units of work that are done, and shows the count.

        with Progress("saliency", 4795, "images") as progress:
            progress.update(32)

    Args:
        what: name of the work.
        total: how many units there are in all.
        unit: name of a unit, in the plural.
    """

    def __init__(self, what: str, total: int, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = 0
        self._start = self._last = time.monotonic()
        self._bar = (
            tqdm(desc=what, total=total, unit=f" {unit}", leave=False)
            if sys.stderr.isatty() and log.isEnabledFor(logging.INFO)
            else None
        )

    def update(self, count: int) -> None:
        """Note that `count` more units are done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._last >= LOG_EVERY:
            self._last = time.monotonic()
            rate = self._done / (self._last - self._start)
            left = (self._total - self._done) / rate if rate else float("inf")
            numbers = (self._done, self._total, self._unit, rate, left)
            log.info("%s: %d of %d %s, %.0f/s, %.0f s left", self._what, *numbers)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._bar is not None:
            self._bar.close()


def track(items: Iterable[T], what: str, total: int, unit: str) -> Iterator[T]:
    """Yield the items, and show progress: each item is one unit.

    Args:
        what, total, unit: as for `Progress`.
    """
    with Progress(what, total, unit) as progress:
        for item in items:
            yield item
            progress.update(1)
