from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import store
from pipeline.compute.ranks import Ranks
from pipeline.errors import MacError
from pipeline.network import training
from pipeline.network.checkpoint import Checkpoint
from pipeline.network.training import Training
from pipeline.project import Opened, Project
from pipeline.spec import IMAGENET, Normalization
from tests import made_up, tiny

CPU = torch.device("cpu")


@pytest.fixture
def given(artefacts: Project) -> Iterator[Opened]:
    with artefacts.open("images") as opened:
        yield opened


def started(given: Opened, params: dict[str, Any] | None = None, **arguments: Any) -> Training:
    """A training with tiny.TRAIN, but for `params`."""
    changed = tiny.TRAIN.model_copy(update=params or {})
    return Training(given, tiny.MODEL, tiny.INPUTS, changed, CPU, **arguments)


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """The tensors that are not the same bits."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


class _KilledError(BaseException):
    """Stands for a kill: no handler of the code under test takes it."""


def killed_after(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """Kill a training at its checkpoint after so many epochs."""
    original = Checkpoint.write

    def write(self: Checkpoint, path: Path) -> None:
        original(self, path)
        if len(self.epochs) == epochs:
            raise _KilledError

    monkeypatch.setattr(Checkpoint, "write", write)


@pytest.mark.parametrize(("momentum", "criterion"), [(0.9, "soft_errors"), (0.0, "auto")])
def test_one_that_was_killed_ends_as_if_it_had_not_been(
    given: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, momentum: float, criterion: str
) -> None:
    params = {"epochs": 3, "schedule": "one_cycle", "momentum": momentum}
    whole, pieces, rest = (started(given, params, criterion=criterion) for _ in range(3))
    whole.to_end(tmp_path / "whole")
    killed_after(monkeypatch, 2)
    with pytest.raises(_KilledError):
        pieces.to_end(tmp_path / "pieces")
    monkeypatch.undo()
    epochs: list[int] = []

    def train_epoch() -> None:
        epochs.append(rest.epoch)
        Training.train_epoch(rest)

    monkeypatch.setattr(rest, "train_epoch", train_epoch)
    rest.to_end(tmp_path / "pieces")
    assert epochs == [2]  # only the epoch that was missing
    assert not differing(rest.state(), whole.state())
    assert not differing(rest.best, whole.best)
    assert rest.history.epochs == whole.history.epochs
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_damaged_checkpoint_starts_anew(
    given: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, again = started(given), started(given)
    whole.to_end(tmp_path / "whole")
    killed_after(monkeypatch, 1)
    with pytest.raises(_KilledError):
        started(given).to_end(tmp_path / "cut")
    monkeypatch.undo()
    content = (tmp_path / "cut").read_bytes()
    (tmp_path / "cut").write_bytes(content[:-5])
    again.to_end(tmp_path / "cut")
    assert "damaged, training starts anew" in caplog.text
    assert not differing(again.state(), whole.state())


def test_it_learns_and_keeps_the_best_epoch(given: Opened, tmp_path: Path) -> None:
    run = started(given, {"epochs": 4})
    kept = []
    for _ in range(4):
        run.train_epoch()
        kept.append(run.state())
    assert run.history.epochs[-1].train_loss < run.history.epochs[0].train_loss
    assert not differing(run.best, kept[run.history.best_epoch - 1])
    predicted = run.predict(given.rows("val")).numpy()
    right = predicted == given.file("images")["label"][:][given.rows("val")]
    assert run.history.epochs[3].val_mean == pytest.approx(right.mean())


def test_errors_of_the_first_epoch_choose_or_those_of_another_model(given: Opened) -> None:
    rows, label = given.rows("val"), given.file("images")["label"][:][given.rows("val")]
    other = torch.randn(len(rows), 2, generator=torch.Generator().manual_seed(0))
    calls: list[None] = []

    def refer() -> torch.Tensor:
        calls.append(None)
        return other

    for reference in (None, refer):
        run, logits = started(given, criterion="soft_errors", reference=reference), []
        for _ in range(2):
            run.train_epoch()
            logits.append(run.logits(rows))
        by = logits[0] if reference is None else other
        weight = torch.exp(-4 * by.double().softmax(1)[torch.arange(len(rows)), label]).numpy()
        right = logits[1].argmax(1).numpy() == label
        expected = [np.average(right[label == c], weights=weight[label == c]) for c in (0, 1)]
        assert run.history.epochs[1].val_worst == pytest.approx(min(expected))
        assert run.history.epochs[1].val_mean == pytest.approx(np.average(right, weights=weight))
    started(given, criterion="worst_class", reference=refer).train_epoch()  # it reads no reference
    assert len(calls) == 1


def test_it_trains_on_the_training_split_without_what_is_held_out(given: Opened) -> None:
    split = given.file("images")["split"][:]
    whole, less = started(given), started(given, {"hold_out": 0.25})
    assert whole.rows.tolist() == np.flatnonzero(split == 0).tolist()
    assert set(less.rows) < set(whole.rows)
    classes = [np.bincount(each.label[each.rows].numpy()).tolist() for each in (whole, less)]
    assert classes == [[8, 8], [6, 6]]
    assert less.history.training.count.sum() == 16  # groups weigh as in the whole training split


def test_a_batch_that_is_too_small_for_all_processes_is_refused(given: Opened) -> None:
    with pytest.raises(
        MacError, match="^train: a batch of 8 images is too small for 5 processes, which need"
    ):
        started(given, ranks=Ranks(0, 5))


def test_process_0_alone_keeps_early_logits(given: Opened) -> None:
    class Second(Ranks):
        """Alone, but it is told what the second of two processes is."""

        first = False

        def to_first(self, value: object) -> None:
            return None

    first, second = (started(given, {"keep_epochs": [1]}, ranks=each) for each in (Ranks(), Second()))
    for run in (first, second):
        run.train_epoch()
    assert torch.equal(first.early["1"], first.logits(given.rows("train")))
    assert second.early == {}
    second.restore(first.checkpoint())
    assert second.early == {}


def test_it_says_where_the_loss_is_not_finite(given: Opened) -> None:
    run = started(given, {"lr": 1e30}, name="jtt")
    with pytest.raises(MacError, match=r"jtt: the loss is (nan|inf) in epoch 1, batch 2; lower jtt\.lr"):
        run.train_epoch()


def test_a_last_step_that_diverges_is_told_though_the_loss_before_it_is_finite(given: Opened) -> None:
    run = started(given, {"lr": 1e30, "batch_size": 64}, name="jtt")
    message = "jtt: the logits are NaN or infinite after epoch 1; lower jtt.lr"
    with pytest.raises(MacError, match=message):
        run.train_epoch()


def test_it_starts_from_a_model_with_that_model_s_normalization(given: Opened, tmp_path: Path) -> None:
    first = started(given)
    first.train_epoch()
    spec = replace(first.spec(), normalization=Normalization((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
    with store.create_folder(tmp_path / "erm") as folder:
        store.write_model(folder, "erm", training.as_numpy(first.state()), spec, {}, {})
    run = started(given, start=store.open_model(tmp_path / "erm", "erm", ""))
    assert not differing(run.state(), first.state())
    assert run.spec() == spec
    run.train_epoch()
    changed = differing(run.state(), first.state())
    assert {"head.weight", "trunk.conv1.0.weight"} <= set(changed)  # nothing is frozen


def test_it_trains_on_what_make_input_makes(given: Opened) -> None:
    seen: list[tuple[list[int], torch.Tensor]] = []

    def grey(rows: np.ndarray[Any, Any], stored: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        pixels = torch.full((len(rows), 3, 64, 64), 0.5)
        seen.append((rows.tolist(), stored))
        return pixels

    inputs: list[torch.Tensor] = []
    run = started(given, {"lr": 1e-9}, make_input=grey)
    run.model.register_forward_pre_hook(lambda _model, x: inputs.append(x[0]))
    run.train_batches()
    assert sorted(row for rows, _ in seen for row in rows) == run.rows.tolist()
    images = given.file("images")
    for rows, stored in seen:
        assert np.array_equal(stored.numpy(), images.rows("image", np.array(rows)))
    normalization = IMAGENET
    expected = [(0.5 - mean) / std for mean, std in zip(normalization.mean, normalization.std, strict=True)]
    assert len(inputs) == 2
    for x in inputs:
        assert x.mean((0, 2, 3)).tolist() == pytest.approx(expected, abs=1e-6)


def test_its_spec_has_the_range_of_the_images(given: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    assert started(given).spec().range == "auto"
    monkeypatch.setitem(given.file("images").provenance.params, "range", 4095.0)  # type: ignore[arg-type]
    assert started(given).spec().range == 4095
    monkeypatch.setitem(given.file("images").provenance.params, "range", -1.0)  # type: ignore[arg-type]
    with pytest.raises(MacError, match=r"images.h5: states range that it cannot have .*; run 'mac prepare'"):
        started(given)


def test_its_spec_says_how_an_image_file_becomes_the_input(given: Opened) -> None:
    assert started(given).spec() == made_up.SPEC
    images = given.file("images")
    assert made_up.SPEC.stored_size == images["image"].shape[1]
    assert made_up.SPEC.to_stored == images.provenance.params["to_stored"]
