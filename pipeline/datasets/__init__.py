"""Readers: from a dataset's own files to records. One module a dataset, one line here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.datasets import folder, waterbirds
from pipeline.datasets.record import Dataset

# Each takes the dataset's folder and its options (params.OPTIONS).
READERS: dict[str, Callable[[Path, Any], Dataset]] = {
    "demo": waterbirds.read,
    "waterbirds": waterbirds.read,
    "folder": folder.read,
}
