"""Features that are streamed from the file give the bytes of those in memory."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import MacError
from pipeline.last_layer import afr, evals, mac, table, views
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.held_out_split import HeldOutSplit
from pipeline.last_layer.method import Cached
from pipeline.last_layer.methods import METHODS
from pipeline.last_layer.scale import Scale
from pipeline.last_layer.table import Resident, Streamed, blocks
from pipeline.last_layer.views import Views
from pipeline.project import Project
from pipeline.setting import Setting
from tests import cached
from tests.cached import fit_params
from tests.conftest import edited

CPU = torch.device("cpu")
NAMES = ("train/original", "train/masked", "train/combined")
SETTINGS = [Setting(0.0, 0.0, 0.1), Setting(2.0, 3.0), Setting(0.0, 1.0)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Some rows alone are intervened on."""
    made = cached.write(tmp_path_factory.mktemp("cached"))
    with edited(made.path("features")) as file:
        file["train/intervened"] = np.arange(60) % 3 > 0
    return made


@pytest.mark.parametrize("read", [1, 500, 1 << 20])
def test_the_rows_are_those_of_the_file(project: Project, monkeypatch: pytest.MonkeyPatch, read: int) -> None:
    """In any order, repeated, across datasets; however many are read at once."""
    monkeypatch.setattr(table, "READ", read)
    wanted = [torch.tensor([3, 4, 5, 59, 60, 61, 7, 7]), slice(50, 70), torch.tensor([299, 0])]
    with project.open("features") as given:
        features = given.file("features")
        whole = np.concatenate([features[name][:].reshape(-1, cached.WIDTH) for name in NAMES])
        streamed = Streamed(features, NAMES, CPU)
    # The file stays open for the table.
    assert (len(streamed), streamed.width) == (300, cached.WIDTH)
    found = [rows.clone() for rows in streamed.rows(wanted)]
    for index, rows in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(rows, whole[index])
    np.testing.assert_array_equal(Resident.of(streamed).values, whole)
    for which, rows in blocks(streamed, 5, 300, 7 * 4 * cached.WIDTH):
        np.testing.assert_array_equal(rows, whole[which])


def test_the_edges_are_those_of_a_table_in_memory(project: Project) -> None:
    with project.open("features") as given:
        streamed = Streamed(given.file("features"), NAMES, CPU)
    resident = Resident.of(streamed)
    none = torch.tensor([], dtype=torch.int64)
    for wanted in (none, slice(4, 4), slice(290, 310), slice(None, 2)):
        (one,), (other,) = resident.rows([wanted]), streamed.rows([wanted])
        assert one.shape == other.shape
        assert torch.equal(one, other)
    for each in (resident, streamed):
        with pytest.raises(IndexError):
            list(each.rows([torch.tensor([0, 300])]))
    # A first row whose place in the file is one byte less than a row takes is read, too.
    streamed._offset, streamed._first = np.array([streamed._row_bytes - 1]), np.array([0])
    one_more = next(streamed.rows([torch.tensor([0])])).numpy().tobytes()
    with project.path("features").open("rb") as file:
        assert file.read()[streamed._row_bytes - 1 :][: streamed._row_bytes] == one_more


def fitted(project: Project, read: int, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> mac.Retrained:
    monkeypatch.setattr(table, "READ", read)
    params = fit_params(**changes)
    with project.open("features", "erm") as given:
        features, erm = given.file("features"), given.model("erm").head()
        validation = HeldOutSplit.to_choose(features, CPU, erm, "auto")
        of_file = Views.of(features, params, CPU)
        assert isinstance(of_file.table, Streamed) == (params.memory == "streamed")
        return mac.fit(of_file, validation, Heads.of(erm), params, SETTINGS)


@pytest.mark.parametrize(
    "changes",
    [
        {"average": 2},
        {"standardize": True, "class_weights": "balanced"},
        {"solver": "lbfgs", "standardize": True, "l2": 0.1},
    ],
)
def test_heads_are_the_same_bytes(
    project: Project, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    expected = fitted(project, 1 << 20, monkeypatch, memory="resident", **changes)
    for read in (1, 3000):
        found = fitted(project, read, monkeypatch, memory="streamed", **changes)
        assert torch.equal(found.heads.weight, expected.heads.weight)
        assert torch.equal(found.heads.bias, expected.heads.bias)
        assert found.history == expected.history


@pytest.mark.parametrize("name", ["afr", "self", "evals"])
def test_other_methods_have_the_same_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Many blocks, too."""
    monkeypatch.setattr(table, "BLOCK", 20 * 4 * cached.WIDTH)
    monkeypatch.setattr(afr, "descend", partial(afr.descend, steps=20))
    monkeypatch.setattr(evals, "SIZES", (5,))
    made, heads = cached.write(tmp_path, kept=[1]), []
    for memory in ("resident", "streamed"):
        with made.open("images", "erm", "features") as given:
            of_file = Cached.of(given, fit_params(memory=memory), [0.0], "auto", CPU)
            heads.append(METHODS[name].fit(of_file).heads)
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert torch.equal(heads[0].bias, heads[1].bias)


def test_auto_is_what_fits(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    needed = 300 * cached.WIDTH * 4
    with project.open("features") as given, caplog.at_level("INFO"):
        for free, kind in ((needed, Streamed), (2 * needed, Resident)):
            monkeypatch.setattr(views, "free_memory", lambda _, free=free: free)
            assert isinstance(Views.of(given.file("features"), fit_params(), CPU).table, kind)
    assert "are read in every pass (retrain.memory auto; 1.44e-05 GB are free)" in caplog.messages[0]
    assert "are kept in memory (retrain.memory auto; 2.88e-05 GB are free)" in caplog.messages[1]


def test_a_constant_feature_has_no_deviation_and_the_others_numpys(project: Project) -> None:
    x = 3 + np.random.default_rng(0).normal(size=(101, 5)).astype(np.float32)
    x[:, 2] = 0.1
    for size in (1, 7, 101):
        scale = Scale.of(torch.from_numpy(x).split(size))
        expected = x.astype(np.float64).std(0)
        expected[2] = 1
        np.testing.assert_allclose(scale.deviation, expected, rtol=1e-7)
        np.testing.assert_allclose(scale.mean, x.astype(np.float64).mean(0), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "f4", "chunks": (1, 60, 12)}, "'train/combined' is in chunks or encoded"),
        ({"dtype": "f2"}, "its features have two dtypes; run 'mac features'"),
        ({"dtype": "f8"}, "'train/combined' is float64 with 3 axes, expected float32 or float16"),
    ],
)
def test_what_cannot_be_read_in_pieces_is_told(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    made = cached.write(tmp_path)
    with edited(made.path("features")) as file:
        del file["train/combined"]
        file.create_dataset("train/combined", data=np.zeros((2, 60, 12)), **options)
    with pytest.raises(MacError, match=message), made.open("features") as given:
        Views.of(given.file("features"), fit_params(), CPU)


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    made = cached.write(tmp_path)
    with edited(made.path("features")) as file:
        for name in NAMES:
            values = file[name][:].astype(np.float16)
            del file[name]
            file[name] = values
    for memory in ("resident", "streamed"):
        with made.open("features") as given:
            of_file = Views.of(given.file("features"), fit_params(memory=memory), CPU)
            found = next(of_file.table.rows([slice(0, 300)]))
            expected = np.concatenate([given.file("features")[name][:].reshape(-1, 12) for name in NAMES])
        assert found.dtype == torch.float32
        assert expected.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_a_file_that_ends_too_early_is_told(project: Project) -> None:
    with project.open("features") as given:
        streamed = Streamed(given.file("features"), NAMES, CPU)
    streamed._offset = streamed._offset + project.path("features").stat().st_size
    with pytest.raises(MacError, match="features.h5: it ends too early"):
        next(streamed.rows([slice(0, 3)]))
