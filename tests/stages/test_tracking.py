"""What trackers of experiments are told, read back from what they keep."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import pytest
from ruamel.yaml import YAML

from pipeline import graph
from pipeline.errors import MacError
from pipeline.params.tracking import TrackerName
from pipeline.project import Project
from pipeline.steps.evaluate import evaluate
from pipeline.steps.train import train
from stages import frame, tracking
from stages.tracking import Tracking, Values, tracked
from tests import conftest, tiny
from tests.cached import AUTO
from tests.conftest import default_params

Points = dict[str, dict[int, float]]


class Recorded:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.points: Points = {}
        self.results: dict[str, float] = {}
        self.files: list[Path] = []
        self.done: list[bool] = []

    def log(self, step: int, values: Values) -> None:
        for name, value in values.items():
            assert step not in self.points.setdefault(name, {})
            self.points[name][step] = value

    def result(self, values: Values) -> None:
        self.results |= values

    def artefact(self, file: Path) -> None:
        self.files.append(file)

    def end(self, done: bool) -> None:
        self.done.append(done)


def history(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "history.csv").read_text().splitlines()))


def trained(project: Project, name: TrackerName, file: Path) -> Path:
    """Train ERM and tell the tracker, as `mac train` does, with an artefact beside; the model folder."""
    out = project.data / "erm"
    with (
        project.open("images") as given,
        tracked("train", name, project.data, {"train": {"epochs": 2}, "empty": {}}) as told,
    ):
        assert told is not None
        context = replace(tiny.context(project.data), track=told.epoch)
        train(given, out, tiny.INPUTS, tiny.MODEL, tiny.TRAIN, AUTO, context)
        told.made("report", file)
    return out


def in_tensorboard(data: Path) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (data / "tensorboard/train").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    texts = [events.Tensors(name)[0].tensor_proto.string_val[0].decode() for name in events.Tags()["tensors"]]
    assert any("train.epochs: 2" in text for text in texts)
    assert any("page.html" in text for text in texts)
    return {name: {e.step: e.value for e in events.Scalars(name)} for name in events.Tags()["scalars"]}


def in_dvclive(data: Path) -> Points:
    folder = data / "dvclive/train"
    found = {}
    for file in (folder / "live/plots/metrics").iterdir():
        rows = list(csv.DictReader(file.read_text().splitlines(), delimiter="\t"))
        found[file.stem] = {int(row["step"]): float(row[file.stem]) for row in rows}
        assert len(found[file.stem]) == len(rows)
    assert json.loads((folder / "live/metrics.json").read_text())["step"] == 2
    assert YAML(typ="safe").load(folder / "dvc.yaml") == {
        "metrics": ["live/metrics.json"],
        "plots": [{"live/plots/metrics": {"x": "step"}}],
    }
    return found


def in_mlflow(data: Path) -> Points:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{data.resolve()}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("mac")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("train", "FINISHED")
    assert run.data.params["train.epochs"] == "2"
    assert [each.path for each in client.list_artifacts(run.info.run_id)] == ["page.html"]
    found: Points = {}
    for name in run.data.metrics:
        points = client.get_metric_history(run.info.run_id, name)
        found[name] = {point.step: point.value for point in points}
        assert len(found[name]) == len(points)
    return found


def own_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the environment says where MLflow writes, nor does one that is set now stay."""
    for name in ("TRACKING_URI", "EXPERIMENT_NAME", "HTTP_REQUEST_MAX_RETRIES", "HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(f"MLFLOW_{name}", "")
        monkeypatch.delenv(f"MLFLOW_{name}")


READ = {"tensorboard": in_tensorboard, "dvclive": in_dvclive, "mlflow": in_mlflow}


@pytest.mark.parametrize("name", ["tensorboard", "dvclive", "mlflow"])
@pytest.mark.filterwarnings("ignore")  # those of the trackers' packages
def test_the_epochs_of_erm_are_read_back(
    own_artefacts: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: TrackerName
) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed here")
    own_places(monkeypatch)
    page = tmp_path / "page.html"
    page.write_text("<p>")
    rows = history(trained(own_artefacts, name, page))
    found = READ[name](own_artefacts.data)
    assert set(found) == rows[0].keys() - {"epoch"}
    for key, points in found.items():
        assert points == {int(row["epoch"]): pytest.approx(float(row[key]), rel=1e-5) for row in rows}, key


class Param(NamedTuple):
    key: str
    value: str


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Server:
    """In the place of MLflow's client: it keeps what is called, and has no experiments but `there`."""

    there: ClassVar[dict[str, str]] = {}
    fails: ClassVar[str] = ""

    def __init__(self, calls: list[tuple[Any, ...]], uri: str) -> None:
        self.calls = calls
        calls.append(("client", uri))

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        return SimpleNamespace(experiment_id=self.there[name]) if name in self.there else None

    def create_experiment(self, name: str, artifact_location: str | None) -> str:
        self.calls.append(("experiment", name, artifact_location))
        return "7"

    def create_run(self, experiment_id: str, run_name: str, tags: dict[str, str]) -> SimpleNamespace:
        self.calls.append(("run", experiment_id, run_name, tags))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def log_batch(self, run_id: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = ()) -> None:
        assert len(metrics) <= 1000  # limits of the REST API: mlflow.org/docs/latest/rest-api.html#log-batch
        assert len(params) <= 100
        name = "params" if params else "metrics"
        self.calls.append((name, run_id, [*params, *metrics]))
        if name == self.fails:
            raise ConnectionError("the server is gone")

    def log_artifact(self, run_id: str, local_path: str) -> None:
        self.calls.append(("artefact", run_id, local_path))

    def set_terminated(self, run_id: str, status: str) -> None:
        self.calls.append(("end", run_id, status))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What MLflow is called with: a module of this name that is no more than that."""
    own_places(monkeypatch)
    found: list[tuple[Any, ...]] = []
    mlflow, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    mlflow.MlflowClient = lambda uri: Server(found, uri)  # type: ignore[attr-defined]
    entities.Metric, entities.Param = Metric, Param  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return found


def test_mlflow_is_told_in_the_place_that_the_docs_name(tmp_path: Path, calls: list[tuple[Any, ...]]) -> None:
    data, page = tmp_path / "data", tmp_path / "page.html"
    many = {f"p{number}": number for number in range(150)}
    with tracked("train", "mlflow", data, {"train": {"epochs": 2}, "more": many}) as told:
        assert told is not None
        told.epoch(1, {"epoch": 1, **{f"m{number}": number / 4 for number in range(1001)}})
        told.made("report", page)
    assert (data / "mlflow").is_dir()  # sqlite makes no folder
    assert calls[:3] == [
        ("client", f"sqlite:///{data}/mlflow/mlflow.db"),
        ("experiment", "mac", (data / "mlflow/files").as_uri()),
        ("run", "7", "train", {"stage": "train"}),
    ]
    assert calls[-2:] == [("artefact", "r1", str(page)), ("end", "r1", "FINISHED")]
    params = [each for name, _, some in calls[3:-2] if name == "params" for each in some]
    assert params == [Param("train.epochs", "2"), *(Param(f"more.{key}", str(n)) for key, n in many.items())]
    metrics = [each for name, _, some in calls[3:-2] if name == "metrics" for each in some]
    assert [each._replace(timestamp=0) for each in metrics] == [
        Metric(f"m{number}", number / 4, 0, 1) for number in range(1001)
    ]


def test_mlflow_is_told_on_a_server(
    tmp_path: Path, calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "birds")
    monkeypatch.setattr(Server, "there", {"birds": "3"})
    with pytest.raises(MacError, match="of the stage"), tracked("train", "mlflow", tmp_path, {}):
        raise MacError("of the stage")
    assert calls == [
        ("client", "http://tracker:5000"), ("run", "3", "train", {"stage": "train"}), ("end", "r1", "FAILED")
    ]  # fmt: skip
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(Server, "there", {})
    with tracked("train", "mlflow", tmp_path, {}):
        pass
    assert ("experiment", "birds", None) in calls  # the server knows where its files are


@pytest.mark.parametrize("fails", ["params", "metrics"])
def test_no_run_of_mlflow_goes_on_for_ever(
    tmp_path: Path, calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    monkeypatch.setattr(Server, "fails", fails)
    with tracked("train", "mlflow", tmp_path, {"train": {"epochs": 2}}) as told:
        assert told is not None
        for epoch in (1, 2):
            told.epoch(epoch, {"epoch": epoch, "train_loss": 0.5})
    names = [call[0] for call in calls]
    assert names[-2:] == [fails, "end"]
    assert (names.count(fails), names.count("end"), calls[-1][2]) == (1, 1, "FAILED")


class Killed(BaseException):
    """Stands for a kill."""


def test_a_training_that_goes_on_tells_each_epoch_once(
    own_artefacts: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, again = Recorded(), Recorded()

    def cut(step: int, values: Values) -> None:
        Recorded.log(killed, step, values)
        if step == 2:
            raise Killed

    monkeypatch.setattr(killed, "log", cut)
    for recorded in (killed, again):
        told = Tracking("recorded", lambda each=recorded: each)  # type: ignore[misc]
        context = replace(tiny.context(own_artefacts.data), track=told.epoch)
        with own_artefacts.open("images") as given:
            try:
                train(given, own_artefacts.data / "erm", tiny.INPUTS, tiny.MODEL, tiny.TRAIN, AUTO, context)
            except Killed:
                assert recorded is killed
    assert list(killed.points["val_worst"]) == list(again.points["val_worst"]) == [1, 2]
    rows = history(own_artefacts.data / "erm")
    assert again.points["train_loss"] == {int(row["epoch"]): float(row["train_loss"]) for row in rows}


def test_what_the_stages_made_is_told(artefacts: Project, tmp_path: Path) -> None:
    told = Recorded()
    follows = Tracking("recorded", lambda: told)
    follows.made("retrain", artefacts.path("retrained"))
    rows = history(artefacts.path("retrained"))
    assert told.points["mean/val_worst"] == {1: pytest.approx(fmean(float(row["val_worst"]) for row in rows))}
    assert told.points["head 1/val_mean"] == {1: float(rows[1]["val_mean"])}
    with artefacts.open("images", "erm", "masks", "features", "retrained", "baselines") as given:
        evaluate(given, tmp_path / "metrics.json", tmp_path / "plots", tiny.context(tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    follows.made("evaluate", tmp_path / "metrics.json")
    assert told.results["erm/test/worst_group"] == metrics["erm"]["test"]["worst_group"]
    assert told.results["mac/test/worst_group/mean"] == metrics["mac"]["test"]["worst_group"]["mean"]
    follows.made("report", tmp_path / "metrics.json")
    follows.made("masks", tmp_path / "nothing")
    assert told.files == [tmp_path / "metrics.json"]


def test_a_tracker_that_fails_is_told_of_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Gone(Recorded):
        def log(self, step: int, values: Values) -> None:
            raise ConnectionError("the server is gone")

        def end(self, done: bool) -> None:
            super().end(done)
            raise ConnectionError("the server is still gone")

    gone = Gone()
    monkeypatch.setitem(tracking.TRACKERS, "tensorboard", lambda *_: gone)
    with tracked("train", "tensorboard", tmp_path, {}) as told:
        assert told is not None
        for epoch in (1, 2):
            told.epoch(epoch, {"epoch": epoch, "train_loss": 0.5})
        told.made("report", tmp_path / "page.html")
    wanted = "tracking: tensorboard fails (the server is gone); the run goes on without it"
    assert caplog.messages == [wanted]
    assert gone.done == [False]


def test_a_run_that_fails_is_noted_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Recorded()
    monkeypatch.setitem(tracking.TRACKERS, "mlflow", lambda *_: told)
    with tracked("train", "mlflow", tmp_path, {}):
        pass
    with pytest.raises(MacError, match="of the stage"), tracked("train", "mlflow", tmp_path, {}):
        raise MacError("of the stage")
    assert told.done == [True, False]


def test_a_package_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MacError) as raised:
        tracking.require("mlflow")
    assert str(raised.value) == "tracking.to: mlflow needs mlflow: pip install 'mac-robust[mlflow]'"
    tracking.require("none")


@pytest.mark.filterwarnings("ignore")
def test_a_command_tells_the_tracker_of_params_yaml(
    own_artefacts: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed here")
    mac = conftest.Project(own_artefacts.data.parent)
    YAML(typ="safe").dump(default_params(), mac.params_file)
    mac.succeed("evaluate")
    before = (mac.data / "metrics.json").read_bytes()
    assert not (mac.data / "tensorboard").exists()
    mac.set(tracking__to="tensorboard")
    mac.succeed("evaluate")
    assert (mac.data / "metrics.json").read_bytes() == before
    (folder,) = (mac.data / "tensorboard/evaluate").iterdir()
    assert list(folder.iterdir())
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda _: None)
    assert "pip install 'mac-robust[tensorboard]'" in mac.fail("prepare")  # the first stage, not tracked


def test_names_that_would_leave_the_folder_are_changed() -> None:
    found = tracking._numbers({"val_a:b/../c": 1, "nan": float("nan"), "text": "x", "yes": True, "état 1": 2})
    assert found == {"val_a_b/_/c": 1.0, "état 1": 2.0}


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("tracking:\n  to: none\n", False),
        ("a: 1\ntracking:\n  # who is told\n  to: none  # or mlflow\nb: 2\n", False),
        ("tracking:\n  to: nonesuch\n", True),
        ("tracking:\n  to: tensorboard  # to: none\n", True),
        ("# tracking:\n#  to: none\ntracking: {to: dvclive}\n", True),
        ("tracking: {to: none}\n", True),  # the same, but only a parser can say so
    ],
)
def test_evaluate_reads_no_parameters_where_no_tracker_is_named(
    text: str, read: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = list[Path]()
    monkeypatch.setattr("pipeline.params_file.load", loaded.append)
    file = tmp_path / "params.yaml"
    frame._loaded(graph.stage("evaluate"), file)
    file.write_text(text)
    frame._loaded(graph.stage("evaluate"), file)
    assert loaded == [file] * read
