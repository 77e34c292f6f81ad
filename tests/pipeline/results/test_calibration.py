"""The temperature against a grid search, and what it leaves as it is."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import MacError
from pipeline.project import Project
from pipeline.results.calibration import HIGHEST, LOWEST, calibrate, fit, scaled, temperature
from pipeline.store import FittedHeads


def sampled(count: int, classes: int, too_sure: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `too_sure` times those that the labels were drawn with."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, classes)) * 2
    return logits * too_sure, (logits + rng.gumbel(size=logits.shape)).argmax(1)


@pytest.mark.parametrize(("classes", "too_sure"), [(2, 3.0), (5, 0.4)])
def test_it_is_the_best_of_a_grid(classes: int, too_sure: float) -> None:
    logits, label = sampled(1000, classes, too_sure)
    found, limit = temperature(logits, label)
    assert limit == "none"
    assert found == pytest.approx(too_sure, rel=0.15)  # what the labels were drawn with
    grid = np.linspace(0.99 * found, 1.01 * found, 201)
    z, y = torch.from_numpy(logits), torch.from_numpy(label)
    losses = [F.cross_entropy(z / t, y).item() for t in grid]
    assert int(np.argmin(losses)) == 100
    wide = [F.cross_entropy(z / t, y).item() for t in np.geomspace(LOWEST, HIGHEST, 99)]
    assert losses[100] < min(wide)
    assert fit(logits / found, label).nll == pytest.approx(losses[100])


def test_where_every_image_is_right_it_is_no_surer_than_their_number_shows() -> None:
    """Laplace: after 38 of 38, the next one is right with the probability 39/40."""
    logits = np.random.default_rng(0).normal(size=(38, 3))
    found, limit = temperature(logits, logits.argmax(1))
    assert limit == "all right"
    assert torch.from_numpy(logits / found).softmax(1).amax(1).mean().item() == pytest.approx(39 / 40)


def test_where_the_answers_are_worse_than_a_guess_it_is_at_its_bound() -> None:
    logits, label = sampled(100, 2, -1.0)
    assert temperature(logits, label) == (HIGHEST, "bound")


def test_answers_stay_as_they_are(artefacts: Project) -> None:
    with artefacts.open("images", "erm", "features", "baselines") as given:
        features, tensors = given.file("features"), given.model("baselines").read()
        head = FittedHeads(tensors["dfr.weight"], tensors["dfr.bias"])[0]
        found = calibrate(given, head)
        for split in ("train", "val", "test"):
            x = features[f"{split}/original"][:]
            before, after = head.logits(x), scaled(head, found.temperature).logits(x)
            np.testing.assert_array_equal(before.argmax(-1), after.argmax(-1))
            np.testing.assert_allclose(after * found.temperature, before, rtol=1e-4, atol=1e-5)
        loss = F.cross_entropy(torch.from_numpy(after[0]), torch.from_numpy(features["test/label"][:]))
    assert found.after.nll == pytest.approx(loss.item(), rel=1e-5)
    assert found.before.nll != pytest.approx(found.after.nll, rel=1e-3)


def test_images_of_one_class_are_not_enough(tmp_path: Path) -> None:
    class OneClass:
        path = tmp_path / "features.h5"

        def __getitem__(self, name: str) -> np.ndarray:
            return np.zeros(4, np.int64) if name.endswith("label") else np.zeros((4, 3), np.float32)

    class Given:
        def file(self, _name: str) -> OneClass:
            return OneClass()

    head = FittedHeads(np.zeros((1, 2, 3), np.float32), np.zeros((1, 2), np.float32))
    with pytest.raises(MacError, match=r"features.h5: the validation split has images of one class only"):
        calibrate(Given(), head)  # type: ignore[arg-type]
