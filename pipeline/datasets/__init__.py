"""Readers: from a dataset's own files to records. One module a dataset, one line here."""

from collections.abc import Callable
from pathlib import Path

from pipeline.datasets import waterbirds
from pipeline.datasets.record import Dataset

READERS: dict[str, Callable[[Path], Dataset]] = {
    "demo": waterbirds.read,
    "waterbirds": waterbirds.read,
}
