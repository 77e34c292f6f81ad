"""A few real Waterbirds images through the whole pipeline, with real ImageNet weights."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from pipeline.results.coverage import by_group
from tests.conftest import (
    SHARED,
    STAGES,
    Project,
    assert_same_masks_features_and_heads,
    default_params,
    erased,
)

WATERBIRDS = SHARED / "waterbirds"
WEIGHTS = SHARED / "weights" / "mobilenet_v2-imagenet1k.safetensors"
pytestmark = pytest.mark.skipif(
    not (WATERBIRDS.is_dir() and WEIGHTS.is_file()),
    reason="no real Waterbirds images and MobileNetV2 weights beside the repository",
)
# `make test-waterbirds` takes all 5,994 images, half an hour on two cores.
ALL = os.environ.get("MAC_REAL_IMAGES") == "all"
ROWS_PER_GROUP = {0: 24, 1: 8, 2: 8}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The first rows of every group and split with a true mask, or all rows, in the official layout."""
    project = Project(tmp_path_factory.mktemp("real"))
    root = project.folder / "raw"
    rows = list(csv.DictReader((WATERBIRDS / "metadata.csv").read_text().splitlines()))
    taken: dict[tuple[str, ...], int] = {}
    chosen = []
    for row in rows:
        key = (row["split"], row["y"], row["place"])
        mask = Path("segmentations", row["img_filename"]).with_suffix(".png")
        few = taken.get(key, 0) < ROWS_PER_GROUP[int(row["split"])] and (
            (WATERBIRDS / mask).is_file() or row["split"] == "2"
        )
        if ALL or few:
            taken[key] = taken.get(key, 0) + 1
            chosen.append(row)
            for file in (Path(row["img_filename"]), mask):
                if (WATERBIRDS / file).is_file():
                    (root / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(WATERBIRDS / file, root / file)
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(chosen)
    YAML(typ="safe").dump(default_params(), project.params_file)
    project.set(
        dataset__name="waterbirds", dataset__root=str(root),
        dataset__stored_size=256, dataset__input_size=224,
        model__architecture="mobilenet_v2", model__weights=str(WEIGHTS),
        train__epochs=1 if ALL else 2, train__lr=0.002, train__schedule="constant",
        saliency__top_k=15000, features__draws=1, features__precision="auto",
        retrain__seeds=2, retrain__epochs=2,
    )  # fmt: skip
    for stage in STAGES:
        project.succeed(stage)
    return project


def test_masks_of_real_birds_lie_on_the_birds(real: Project) -> None:
    with real.open("images", "erm", "masks") as given:
        images, masks = given.file("images"), given.file("masks")
        assert (masks["mask"][:].sum((1, 2)) == 15000).all()
        table = by_group(images, masks, given.model("erm").spec)
    mean_inside, mean_outside = (
        np.average([getattr(r, name) for r in table], weights=[r.n for r in table])
        for name in ("mask_fg", "mask_bg")
    )
    # Chance is 15000 of 224² pixels, 0.30; two epochs on 96 images are little.
    assert mean_inside > 0.38
    assert mean_outside < 0.3


def test_the_whole_pipeline_ends_with_metrics(real: Project) -> None:
    metrics = json.loads((real.data / "metrics.json").read_text())
    assert sum(metrics["count"]["test"].values()) == (598 if ALL else 32)
    assert 0 <= metrics["mac"]["test"]["worst_group"]["mean"] <= 1
    assert not torch.tensor(list(metrics["erm"]["test"]["groups"].values())).isnan().any()


def test_attributes_of_training_images_change_nothing(real: Project, tmp_path: Path) -> None:
    assert_same_masks_features_and_heads(real, erased(real, tmp_path, "0"))
