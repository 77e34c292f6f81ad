import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from pipeline import store
from tests.conftest import Project

NAMES = ("landbird_land", "landbird_water", "waterbird_land", "waterbird_water")


def test_metrics_equal_a_count_by_hand(finished: Project) -> None:
    metrics = json.loads((finished.data / "metrics.json").read_text())
    with store.open_artefact(finished.data / "features.h5") as cached:
        x, label, attribute = (cached[f"test/{name}"][:] for name in ("original", "label", "attribute"))
    heads = load_file(finished.data / "retrained/head.safetensors")
    erm = store.open_model(finished.data / "erm", "erm").head()

    def accuracies(weight: np.ndarray, bias: np.ndarray) -> list[float]:
        correct = (x @ weight.T + bias).argmax(1) == label
        return [correct[(label == y) & (attribute == a)].mean() for y in (0, 1) for a in (0, 1)]

    expected = accuracies(*erm)
    assert metrics["erm"]["test"]["groups"] == pytest.approx(dict(zip(NAMES, expected, strict=True)))
    assert metrics["erm"]["test"]["worst_group"] == pytest.approx(min(expected))
    assert metrics["erm"]["test"]["raw_mean"] == pytest.approx(np.mean(expected))  # groups of 8 each
    assert metrics["erm"]["test"]["adjusted_mean"] == pytest.approx(np.average(expected, weights=[40, 6, 4, 20]))
    worst = [min(accuracies(w, b)) for w, b in zip(heads["weight"], heads["bias"], strict=True)]
    found = metrics["mac"]["test"]["worst_group"]
    assert found["mean"] == pytest.approx(np.mean(worst))
    assert found["std"] == pytest.approx(np.std(worst, ddof=1))
    assert metrics["count"]["test"] == dict.fromkeys(NAMES, 8)


def test_the_table_shows_the_same_numbers(finished: Project) -> None:
    metrics = json.loads((finished.data / "metrics.json").read_text())
    output = finished.succeed("inspect", str(finished.data / "metrics.json")).output
    line = next(line for line in output.splitlines() if line.startswith("worst group"))
    assert f"{100 * metrics['erm']['test']['worst_group']:.2f}" in line
    mac = metrics["mac"]["test"]["worst_group"]
    assert f"{100 * mac['mean']:.2f} ± {100 * mac['std']:.2f}" in line
    assert "mean ± standard deviation of 2 retrained heads" in output
