"""Tells a tracker of experiments how a run goes: curves, final metrics, and the report.

`tracking.to` names the tracker. Its package is imported only then. No stage knows of it, and no artefact.
"""

import importlib.util
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from pipeline.compute.progress import log
from pipeline.errors import MacError, first_line
from pipeline.params.tracking import TrackerName

Values = Mapping[str, float]
# Most of each in one request to MLflow.
_METRICS, _PARAMS = 1000, 100


class Tracker(Protocol):
    """One run of a stage, as a tracker of experiments has it. A method may raise what its package does."""

    def log(self, step: int, values: Values) -> None:
        """Add a point to each curve. Steps rise, and none comes twice in a run."""
        ...

    def result(self, values: Values) -> None:
        """Note final numbers."""
        ...

    def artefact(self, file: Path) -> None:
        """Keep a file, or its path alone; nothing, for a tracker of which it is an output already."""
        ...

    def end(self, done: bool) -> None:
        """The run is over; `done` is whether it made what it should."""
        ...


class DVCLive:
    """`data/dvclive/<stage>`: for `dvc exp show`, `dvc plots show` and the extension of VS Code.

    The folder is not hidden from git, because DVC looks into no folder that is. The experiment is DVC's own,
    so DVCLive saves none, and the report, an output of its stage, is there already.
    """

    def __init__(self, stage: str, data: Path, _params: Mapping[str, object]) -> None:
        from dvclive.live import Live

        folder = data / "dvclive" / stage
        # With dvc.yaml in its own folder, DVCLive would list the same files once more after each epoch.
        self._live = Live(str(folder / "live"), save_dvc_exp=False, dvcyaml=str(folder / "dvc.yaml"))

    def log(self, step: int, values: Values) -> None:
        self._live.step = step
        for name, value in values.items():
            self._live.log_metric(name, value)
        self._live.next_step()

    def result(self, values: Values) -> None:
        for name, value in values.items():
            self._live.log_metric(name, value, plot=False)

    def artefact(self, file: Path) -> None:
        pass

    def end(self, done: bool) -> None:
        self._live.end()


class TensorBoard:
    """`data/tensorboard/<stage>/<time>`: `tensorboard --logdir data/tensorboard`."""

    def __init__(self, stage: str, data: Path, params: Mapping[str, object]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = data / "tensorboard" / stage / f"{datetime.now():%Y-%m-%d_%H-%M-%S_%f}"
        self._writer = SummaryWriter(str(folder))
        rows = "".join(f"    {key}: {value}\n" for key, value in params.items())  # indented: a block of code
        self._writer.add_text("params.yaml", rows)

    def log(self, step: int, values: Values) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def result(self, values: Values) -> None:
        self.log(0, values)

    def artefact(self, file: Path) -> None:
        self._writer.add_text(file.name, str(file.resolve()))

    def end(self, done: bool) -> None:
        self._writer.close()


class MLflow:
    """The server of MLFLOW_TRACKING_URI, or `data/mlflow`: `mlflow ui --backend-store-uri sqlite:///…`.

    The experiment is that of MLFLOW_EXPERIMENT_NAME, or `mac`.
    """

    def __init__(self, stage: str, data: Path, params: Mapping[str, object]) -> None:
        # Its own defaults let a run wait for minutes if the server is gone.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric = Metric
        here = (data / "mlflow").resolve()
        elsewhere = os.environ.get("MLFLOW_TRACKING_URI")
        if not elsewhere:
            here.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(elsewhere or f"sqlite:///{here / 'mlflow.db'}")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "mac")
        found = self._client.get_experiment_by_name(name)
        place = None if elsewhere else (here / "files").as_uri()
        experiment = found.experiment_id if found else self._client.create_experiment(name, place)
        self._run = self._client.create_run(experiment, run_name=stage, tags={"stage": stage}).info.run_id
        try:
            for some in _pieces([Param(key, str(value)) for key, value in params.items()], _PARAMS):
                self._client.log_batch(self._run, params=some)
        except Exception:
            with suppress(Exception):
                self.end(False)
            raise

    def log(self, step: int, values: Values) -> None:
        now = int(1000 * time.time())
        for some in _pieces([self._metric(*each, now, step) for each in values.items()], _METRICS):
            self._client.log_batch(self._run, metrics=some)

    def result(self, values: Values) -> None:
        self.log(0, values)

    def artefact(self, file: Path) -> None:
        self._client.log_artifact(self._run, str(file))

    def end(self, done: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if done else "FAILED")


def _pieces(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


TRACKERS: dict[str, Callable[[str, Path, Mapping[str, object]], Tracker]] = {
    "dvclive": DVCLive,
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
}


def require(name: TrackerName) -> None:
    """Refuse a tracker whose package is not installed. Nothing is imported.

    Raises:
        MacError: says how to install it.
    """
    if name != "none" and importlib.util.find_spec(name) is None:
        raise MacError(f"tracking.to: {name} needs {name}: pip install 'mac-robust[{name}]'")


class Tracking:
    """A tracker whose failure ends no run: it is told once, its own run ends, and the stage goes on without.

    Args:
        name: of the tracker.
        begin: starts its run.
    """

    def __init__(self, name: str, begin: Callable[[], Tracker]) -> None:
        self._name = name
        self._tracker: Tracker | None = None
        with self._forgiven():
            self._tracker = begin()

    def epoch(self, number: int, row: Mapping[str, object]) -> None:
        """Log a row of the history of a training, as it comes; what is no finite number is left out."""
        with self._forgiven():
            if self._tracker:
                self._tracker.log(number, _numbers({key: row[key] for key in row if key != "epoch"}))

    def made(self, stage: str, path: Path) -> None:
        """Log what a stage has made, as its artefact has it; `path` is that of the first artefact."""
        with self._forgiven():
            if self._tracker and stage == "retrain":
                for step, values in _curves(path / "history.csv"):
                    self._tracker.log(step, values)
            if self._tracker and stage == "evaluate":
                self._tracker.result(_numbers(_metrics(path)))
            if self._tracker and stage == "report":
                self._tracker.artefact(path)

    def end(self, done: bool) -> None:
        """The run is over."""
        tracker, self._tracker = self._tracker, None
        with self._forgiven():
            if tracker:
                tracker.end(done)

    @contextmanager
    def _forgiven(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            log.warning("tracking: %s fails (%s); the run goes on without it", self._name, first_line(error))
            tracker, self._tracker = self._tracker, None
            if tracker:
                with suppress(Exception):
                    tracker.end(False)


@contextmanager
def tracked(
    stage: str, name: TrackerName, data: Path, values: Mapping[str, Any]
) -> Iterator[Tracking | None]:
    """Track a run of a stage; None for the tracker `none`.

    Args:
        values: of params.yaml, by block and key.
    """
    if name == "none":
        yield None
        return
    tracking = Tracking(name, lambda: TRACKERS[name](stage, data, _flat(values, ".")))
    done = False
    try:
        yield tracking
        done = True
    finally:
        tracking.end(done)


def _curves(history: Path) -> Iterator[tuple[int, Values]]:
    """The epochs of history.csv of retraining: the mean over the heads, and the main values of each head."""
    from pipeline.store import read_csv

    epochs: dict[int, list[dict[str, str]]] = {}
    for row in read_csv(history, "run 'mac retrain'"):
        epochs.setdefault(int(row["epoch"]), []).append(row)
    for epoch, rows in epochs.items():
        values: dict[str, object] = {}
        for key in rows[0].keys() - {"epoch", "seed"}:
            values[f"mean/{key}"] = fmean(float(row[key]) for row in rows)
        for row in rows:
            for key in row.keys() & {"loss", "val_worst", "val_mean"}:
                values[f"head {row['seed']}/{key}"] = float(row[key])
        yield epoch, _numbers(values)


def _metrics(file: Path) -> dict[str, object]:
    """The numbers of metrics.json for ERM and MaC, such as `mac/test/worst_group/mean`."""
    from pipeline.store import read_json

    found = read_json(file, "run 'mac evaluate'")
    return _flat({name: found[name] for name in ("erm", "mac")}, "/")


def _flat(values: Mapping[str, Any], joint: str, before: Sequence[str] = ()) -> dict[str, object]:
    """Nested values by joined keys."""
    found: dict[str, object] = {}
    for key, value in values.items():
        names = (*before, str(key).replace("/", "_"))
        if isinstance(value, Mapping) and value:
            found |= _flat(value, joint, names)
        else:
            found[joint.join(names)] = value
    return found


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    """What is a finite number, under a name that every tracker takes and that leaves no folder."""
    found = {}
    for name, value in values.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            parts = [re.sub(r"[^\w. -]", "_", part) for part in name.split("/")]
            found["/".join("_" if set(part) <= {"."} else part for part in parts)] = float(value)
    return found
