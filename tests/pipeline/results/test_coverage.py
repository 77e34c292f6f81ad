import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline import store
from pipeline.network.inputs import to_input_grid
from pipeline.results.coverage import coverage
from tests.conftest import Project


def test_coverage_per_group_against_a_count(finished: Project) -> None:
    with store.open_artefact(finished.data / "images.h5") as images, store.open_artefact(finished.data / "masks.h5") as masks:
        row = coverage(images, masks)[2]
        counted = []
        for sample, number in enumerate(masks["row"][:]):
            if images["label"][number] == 1 and images["attribute"][number] == 0:
                foreground = to_input_grid(torch.from_numpy(images["foreground"][number][None]), 64, "center_crop")[0].numpy()
                mask, cam = masks["mask"][sample], torch.from_numpy(masks["cam"][sample])[None, None]
                heights = F.interpolate(cam, (64, 64), mode="bilinear", align_corners=False)[0, 0].numpy().clip(0)
                heights = heights / heights.max() if heights.max() > 0 else heights
                parts = (foreground, ~foreground)
                counted.append([heights[p].mean() for p in parts] + [mask[p].mean() for p in parts])
    assert (row.group, row.n) == ("waterbird_land", 4)
    assert (row.map_fg, row.map_bg, row.mask_fg, row.mask_bg) == pytest.approx(np.mean(counted, 0), rel=1e-5)


def test_a_dataset_without_true_masks_has_nothing_to_count(project: Project) -> None:
    with store.open_artefact(project.data / "images.h5") as images, store.open_artefact(project.data / "masks.h5") as masks:
        without = store.Artefact(images.path, "images", _Without(images.file), images.digest)  # type: ignore[arg-type]
        assert [row.n for row in coverage(without, masks)] == [0, 0, 0, 0]


class _Without(dict):  # type: ignore[type-arg]
    """An open HDF5 file whose true masks are hidden."""

    def __init__(self, file: object) -> None:
        self.file = file
        self.attrs = file.attrs  # type: ignore[attr-defined]

    def __getitem__(self, name: str) -> object:
        return self.file[name]  # type: ignore[index]

    def __contains__(self, name: object) -> bool:
        return name not in ("foreground", "has_foreground")
