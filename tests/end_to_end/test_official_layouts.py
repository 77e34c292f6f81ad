"""Every reader's dataset, in the layout of the published files, from prepare to evaluate."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from tests import official_layouts
from tests.conftest import STAGES, Project, default_params


def dominoes(root: Path) -> None:
    official_layouts.mnist(root, train=400)
    official_layouts.cifar10(root)


CASES: dict[str, tuple[Callable[[Path], None], dict[str, Any], int, str]] = {
    # how the files are made, the options, number of classes, and whose worst accuracy is reported
    "celeba": (lambda root: official_layouts.celeba(root, "txt"), {}, 2, "group"),
    "metashift": (lambda root: official_layouts.metashift(root), {}, 2, "group"),
    "dominoes": (dominoes, {"correlation": 0.8}, 2, "group"),
    "bar": (lambda root: official_layouts.bar(root), {}, 6, "class"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_published_dataset(name: str, tmp_path: Path) -> None:
    make, options, classes, kind = CASES[name]
    (tmp_path / "raw").mkdir()
    make(tmp_path / "raw")
    project = Project(tmp_path)
    YAML(typ="safe").dump(default_params(), project.params_file)
    project.set(
        dataset__name=name, dataset__root=str(tmp_path / "raw"), dataset__options=options,
        dataset__stored_size=64, dataset__input_size=64,
        dataset__to_stored="center_crop" if name == "celeba" else "squash", dataset__to_input="resize",
        model__weights="none", train__epochs=1, train__batch_size=8, train__precision="float32",
        features__draws=1, features__batch_size=8, retrain__seeds=2, retrain__epochs=2,
    )  # fmt: skip
    for stage in STAGES:
        project.succeed(stage)
    metrics = json.loads((project.data / "metrics.json").read_text())
    for model in ("erm", "mac"):
        assert f"worst_{kind}" in metrics[model]["test"]
    assert ("groups" in metrics["mac"]["test"]) == (kind == "group")
    with project.open("images", "masks") as given:
        images, masks = given.file("images"), given.file("masks")
        assert len(images.attribute("classes")) == classes
        assert len(masks["row"]) == (images["split"][:] == 0).sum()
        assert (masks["mask"][:].sum((1, 2)) == round(0.3 * 64 * 64)).all()
        if name == "dominoes":
            foreground = images["foreground"][:]
            assert images["has_foreground"][:].all()
            assert np.array_equal(foreground, np.broadcast_to(np.arange(64)[:, None] >= 32, foreground.shape))
    table = project.succeed("inspect", str(project.data / "metrics.json")).output
    named = {
        "celeba": "Blond_Hair_not_Male",
        "metashift": "cat_shelf",
        "dominoes": "truck_0",
        "bar": "pole vaulting",
    }
    assert named[name] in table
