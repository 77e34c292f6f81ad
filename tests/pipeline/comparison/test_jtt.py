import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.comparison.jtt import error_set, jtt, upweighted
from pipeline.comparison.whole_network import ErmParams
from pipeline.network.training import Training
from pipeline.params.jtt import JttParams
from pipeline.project import Project
from tests import made_up, tiny
from tests.cached import AUTO

PARAMS = JttParams(first_epochs=1, upweight=3, epochs=2, lr=0.02, weight_decay=0.01)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Images, ERM, and JTT's model."""
    made = made_up.write(tmp_path_factory.mktemp("jtt"))
    tiny.train_erm(made, hold_out=0.1)
    with made.open("images", "erm") as given:
        jtt(given, made.path("jtt"), PARAMS, AUTO, tiny.context(made.data))
    return made


def test_the_error_set_is_what_is_classified_wrong(project: Project) -> None:
    with project.open("images") as given:
        training = Training(given, tiny.MODEL, tiny.INPUTS, tiny.TRAIN, torch.device("cpu"))
        rows = training.rows
        label = given.file("images")["label"][:][rows]
        wrong = training.predict(rows).numpy() != label
        assert 0 < wrong.sum() < len(rows)
        assert error_set(training).tolist() == rows[wrong].tolist()


def test_the_error_set_counts_more() -> None:
    rows = upweighted(np.arange(5), np.array([1, 3]), 4)
    assert np.bincount(rows).tolist() == [1, 4, 1, 4, 1]
    assert upweighted(np.arange(5), np.array([1]), 1).tolist() == [0, 1, 2, 3, 4]


def test_it_writes_a_model_and_a_row_of_the_comparison(project: Project) -> None:
    with project.open("images", "erm", "jtt") as given:
        model = given.model("jtt")
        assert model.spec == given.model("erm").spec
        assert model.provenance.params == {**PARAMS.model_dump(), "criterion": "groups"}
        assert model.provenance.made_from == given.digests("images", "erm")
        row = json.loads((model.path / "metrics.json").read_text())
        assert row["made_from"] == given.digests("images", "erm")
        (seen,), label = model.read("answers")["test"], given.file("images")["label"][:][given.rows("test")]
        assert row["test"]["raw_mean"]["mean"] == pytest.approx((seen == label).mean())
        of_groups = row["test"]["groups"].values()
        grouping = given.grouping("test")
        assert [each["mean"] for each in of_groups] == pytest.approx(grouping.accuracy(seen == label))
    assert (row["title"], row["sign"], row["seeds"]) == ("JTT", "✓", 1)
    assert 0 <= row["test"]["worst_group"]["mean"] <= 1
    assert 0 <= row["val"]["worst_group"]["mean"] <= 1
    assert {"T": 1, "lambda": 3}.items() <= row["chosen"].items()
    assert len((model.path / "history.csv").read_text().splitlines()) == 3
    assert not any((project.data / "scratch").iterdir())


def test_the_second_training_sees_the_error_set_more_often(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, Training]] = []
    original = Training.to_end

    def to_end(self: Training, checkpoint: Path) -> None:
        original(self, checkpoint)
        seen.append((len(self.rows), self))

    monkeypatch.setattr(Training, "to_end", to_end)
    with project.open("images", "erm") as given:
        jtt(given, tmp_path / "jtt", PARAMS, AUTO, tiny.context(tmp_path))
        (count, first), (longer, second) = seen
        errors = error_set(first)
    assert count == 16 - 2 * round(0.1 * 8)  # JTT leaves out what ERM left out
    assert longer == count + 2 * len(errors)
    counts = np.bincount(second.rows, minlength=16)
    assert np.flatnonzero(counts == 3).tolist() == sorted(errors)
    assert (first.params.epochs, second.params.epochs) == (1, 2)
    assert first.params.batch_size == second.params.batch_size == tiny.TRAIN.batch_size


def test_the_file_that_it_starts_from_is_in_its_key(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[tuple[object, ...]] = []

    class StopError(Exception):
        pass

    def scratch(*key: object) -> None:
        keys.append(key)
        raise StopError

    start = tmp_path / "start.pth"
    model = tiny.MODEL.model_copy(update={"weights": str(start), "classifier": "own.pth"})
    made = replace(ErmParams(tiny.MODEL, tiny.INPUTS, tiny.TRAIN), model=model)
    monkeypatch.setattr("pipeline.comparison.jtt.shared_scratch", scratch)
    monkeypatch.setattr("pipeline.comparison.whole_network.ErmParams.of", lambda _: made)
    with project.open("images", "erm") as given:
        for content in (b"a", b"b"):
            start.write_bytes(content)
            with pytest.raises(StopError):
                jtt(given, tmp_path / "jtt", PARAMS, AUTO, tiny.context(tmp_path))
    first, second = keys
    assert {"weights": hashlib.sha256(b"a").hexdigest()} in first
    assert {"weights": hashlib.sha256(b"b").hexdigest()} in second


def test_an_empty_error_set_is_told(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.comparison.jtt.error_set", lambda first: first.rows[:0])
    with project.open("images", "erm") as given:
        jtt(given, tmp_path / "jtt", PARAMS, AUTO, tiny.context(tmp_path))
    note = "no training image of landbird, waterbird is in the error set"
    assert json.loads((tmp_path / "jtt" / "metrics.json").read_text())["note"] == note
    assert f"jtt: {note}; lower jtt.first_epochs" in caplog.messages
