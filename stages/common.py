"""What the stage commands share: where artefacts lie, their options, and the record of a run."""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click

from pipeline.compute.machine import usable_cores

params_option = click.option("--params", "params_path", type=click.Path(path_type=Path), default="params.yaml", show_default=True)
data_option = click.option(
    "--data", "data", type=click.Path(path_type=Path), default="data", show_default=True, help="Folder of all artefacts."
)
device_option = click.option("--device", default="auto", show_default=True, help="auto (CUDA where there is one), cpu, cuda or cuda:N.")


@dataclass(frozen=True)
class Layout:
    """Where every artefact lies below the data folder."""

    data: Path

    @property
    def images(self) -> Path:
        return self.data / "images.h5"

    @property
    def erm(self) -> Path:
        return self.data / "erm"

    @property
    def masks(self) -> Path:
        return self.data / "masks.h5"

    @property
    def features(self) -> Path:
        return self.data / "features.h5"

    @property
    def retrained(self) -> Path:
        return self.data / "retrained"

    @property
    def examples(self) -> Path:
        return self.data / "examples.h5"

    @property
    def metrics(self) -> Path:
        return self.data / "metrics.json"

    @property
    def plots(self) -> Path:
        return self.data / "plots"

    @property
    def baselines(self) -> Path:
        return self.data / "baselines.json"

    @property
    def sweep(self) -> Path:
        return self.data / "sweep"

    @property
    def comparison(self) -> Path:
        """What the second pipeline makes."""
        return self.data / "comparison"

    @property
    def timings(self) -> Path:
        return self.data / "timings"

    @property
    def scratch(self) -> Path:
        """Unfinished work, outside DVC's outs: DVC deletes those before a stage runs. MAC_SCRATCH puts it where experiments share it."""
        return Path(os.environ.get("MAC_SCRATCH") or self.data / "scratch")


@contextmanager
def recorded(layout: Layout, stage: str, device: str) -> Iterator[None]:
    """Write timings/<stage>.json when the block ends well: what may differ between runs stays out of the artefacts."""
    start = time.monotonic()
    yield
    if os.environ.get("RANK", "0") != "0":  # of processes that train together the first one writes
        return
    record = {
        "seconds": round(time.monotonic() - start, 2),
        "device": device,
        "cores": usable_cores(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }
    path = layout.timings / f"{stage}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")
