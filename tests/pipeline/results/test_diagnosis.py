"""ERM on views of the validation images: counts by hand, for features and a head of known answers."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline import graph, store
from pipeline.project import Project
from pipeline.results import diagnosis_table
from pipeline.results.blanks import is_blank
from pipeline.results.convergence import whole_diagnosis
from pipeline.results.diagnosis_words import ASSUMPTION
from pipeline.results.intervals import difference_interval, mean_interval, wilson
from pipeline.schemas import features, images, masks
from pipeline.spec import IMAGENET, ModelSpec
from tests.conftest import edited

NEEDS = ("images", "erm", "masks", "features")
NAMES = {"classes": ("ant", "bee", "cow"), "attributes": ()}
LABEL = np.array([0] * 12 + [1] * 20)  # of the validation images; there is no cow
PARTNER = np.array([1] * 12 + [0] * 20)  # positions in train/, which has an ant and two bees
# What ERM says, in each of two draws.
ORIGINAL = np.array([0] * 9 + [1] * 3 + [1] * 20)
CORE = np.array([[0] * 6 + [1] * 6 + [1] * 15 + [2] * 5, [0] * 12 + [1] * 15 + [2] * 5])
REST = np.array([[1] * 12 + [0] * 20, [1] * 12 + [1] * 20])
SAME = np.array([[0] * 10 + [1] * 2 + [1] * 20, [0] * 12 + [1] * 18 + [2] * 2])  # core on its own class
COMBINED = np.array([[0] * 8 + [1] * 2 + [2] * 2 + [1] * 10 + [0] * 10, [0] * 12 + [1] * 20])


def write(
    data: Path,
    label: np.ndarray = LABEL,
    with_masks: bool = True,
    method: str = "xgradcam",
    side: str = "core",
    target: np.ndarray | None = None,
    rest: Sequence[bool] = (),
) -> Project:
    """A project in which ERM says the above; three training images, one of them with a blank map."""
    project = graph.project(data)
    training, count = np.array([0, 1, 1]), len(label)
    classes = np.concatenate([training, label, [2]])
    with store.create(project.path("images"), "images", images.SCHEMA, {}, {}, **NAMES) as file:
        file.write("image", np.zeros((len(classes), 1, 1, 3), np.uint8))
        file.write("label", classes)
        file.write("attribute", np.full(len(classes), -1))
        file.write("split", np.repeat([0, 1, 2], [3, count, 1]).astype(np.int8))
        file.write("path", [f"{row}.png" for row in range(len(classes))])
    spec = ModelSpec("none", **NAMES, stored_size=1, to_stored="squash", input_size=1, to_input="resize",
                     normalization=IMAGENET)  # fmt: skip
    head = {"head.weight": np.eye(3, dtype=np.float32), "head.bias": np.zeros(3, np.float32)}
    with project.open("images") as given, store.create_folder(project.path("erm")) as folder:
        made = {"train": {"hold_out": 0.0, "seed": 0, "weight_decay": 0.001}}
        store.write_model(folder, "erm", head, spec, made, given.digests("images"))
    with project.open("images", "erm") as given:
        made_from = given.digests("images", "erm")
    parts = {"": np.arange(3), **({"val/": 3 + np.arange(count)} if with_masks else {})}
    made_by = {"method": method, "side": side}
    with store.create(project.path("masks"), "masks", masks.SCHEMA, made_by, made_from) as file:
        if rest:
            file.write("rest", np.array(rest))
        for part, rows in parts.items():
            cam = np.tile(np.array([[1.0, -1.0]], np.float32), (len(rows), 1, 1))
            cam[-1] *= 0
            file.write(f"{part}row", rows)
            file.write(f"{part}target", classes[rows] if target is None or not part else target)
            file.write(f"{part}mask", np.ones((len(rows), 1, 1), np.bool_))
            file.write(f"{part}cam", cam)
            file.write(f"{part}channel_mean", np.zeros((len(rows), 3), np.float32))
    with project.open("images", "erm", "masks") as given:
        made_from = given.digests("images", "erm", "masks")
    said = np.eye(3, dtype=np.float32)
    with store.create(project.path("features"), "features", features.SCHEMA, {}, made_from, **NAMES) as file:
        for split, rows in (
            ("train", np.arange(3)),
            ("val", 3 + np.arange(count)),
            ("test", np.array([3 + count])),
        ):
            file.write(f"{split}/original", said[ORIGINAL if split == "val" else classes[rows]])
            file.write(f"{split}/label", classes[rows])
            file.write(f"{split}/attribute", np.full(len(rows), -1))
            file.write(f"{split}/row", rows)
        for view in ("masked", "combined"):
            file.write(f"train/{view}", said[training][None])
        for name in ("partner", "batch"):
            file.write(f"train/{name}", np.zeros((1, 3), np.int32))
        file.write("train/order", np.arange(3, dtype=np.int32)[None])
        file.write("train/fill", np.zeros((1, 3, 3), np.float32))
        if with_masks:
            _write_views(file)
    return project


def _write_views(file: store.Writer) -> None:
    said = np.eye(3, dtype=np.float32)
    file.write("val/position", np.arange(len(LABEL)))
    file.write("val/masked", said[CORE])
    file.write("val/rest", said[REST])
    file.write("val/batch", np.zeros(CORE.shape, np.int32))
    file.write("val/fill", np.zeros((*CORE.shape, 3), np.float32))
    file.write("val/combined", said[COMBINED])
    file.write("val/combined_same", said[SAME])
    file.write("val/train_partner", np.stack([PARTNER, PARTNER]).astype(np.int32))
    file.write("val/train_partner_same", np.zeros(SAME.shape, np.int32))


def found_in(project: Project) -> dict[str, Any]:
    with project.open(*NEEDS) as given:
        found = whole_diagnosis(given)
    return dict(json.loads(json.dumps(found, allow_nan=False)))


def test_every_share_is_that_of_the_answers(tmp_path: Path) -> None:
    found = found_in(write(tmp_path))
    assert (found["images"], found["draws"]) == (32, 2)
    ant, bee = found["classes"]["ant"], found["classes"]["bee"]
    expected = {
        "original": (9 / 12, 1),
        "core": ((6 + 12) / 24, 15 / 20),
        "rest": (0, 1 / 2),
        "same": ((10 + 12) / 24, 38 / 40),
        "own": ((8 + 12) / 24, 30 / 40),
        "partner": (2 / 24, 10 / 40),
        "neither": (2 / 24, 0),
        "swayed": (1 / 24, 10 / 40),  # the first eight and the ninth ant are right; the ninth is swayed once
    }
    for name, (of_ants, of_bees) in expected.items():
        assert ant[name] == pytest.approx(of_ants)
        assert bee[name] == pytest.approx(of_bees)
        assert found["balanced"][name] == pytest.approx((of_ants + of_bees) / 2)
        assert found["all"][name] == pytest.approx((12 * of_ants + 20 * of_bees) / 32)
    for name in expected:
        assert ant[f"{name}_interval"] == dict(zip(("low", "high"), wilson(ant[name], 12), strict=True))
    assert (ant["images"], bee["images"]) == (12, 20)
    assert set(found["classes"]) == {"ant", "bee"}
    assert found["verdict"] == "holds"
    assert (ant["dependence"], bee["dependence"]) == pytest.approx((2 / 24, 8 / 40))
    assert found["balanced"]["dependence"] == pytest.approx((2 / 24 + 8 / 40) / 2)
    ends = difference_interval((SAME == 1).mean(0)[12:], (COMBINED == 1).mean(0)[12:])
    assert bee["dependence_interval"] == dict(zip(("low", "high"), ends, strict=True))
    assert (ant["finding"], bee["finding"], found["dependence"]) == ("none", "none", "unclear")


def test_without_partners_of_the_same_class_the_dependence_is_unknown(tmp_path: Path) -> None:
    project = write(tmp_path)
    before = found_in(project)
    with edited(project.path("features")) as file:
        del file["val/combined_same"], file["val/train_partner_same"]
    found = found_in(project)
    assert (found["verdict"], found["dependence"]) == (before["verdict"], "unknown")
    assert not {"same", "dependence"} & found["balanced"].keys()
    assert "ependence" not in diagnosis_table.table(found).replace(diagnosis_table.VIEWS_NOTE, "")


def test_blank_maps_are_counted(tmp_path: Path) -> None:
    blank = found_in(write(tmp_path))["blank"]
    assert blank["train"]["count"] == 1
    assert blank["train"]["share"] == pytest.approx(1 / 3)
    assert blank["train"]["classes"] == {"ant": {"count": 0, "share": 0}, "bee": {"count": 1, "share": 0.5}}
    assert blank["val"]["classes"] == {"ant": {"count": 0, "share": 0}, "bee": {"count": 1, "share": 0.05}}
    cams = np.array([[[0, 1.0]], [[-1, 1.0]], [[2.0, 2.0]], [[-1, 0.0]], [[-2, -1.0]]], np.float32)
    assert is_blank(cams).tolist() == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("method", "side", "assumed"),
    [
        ("xgradcam", "rest", "rest"),
        ("random", "core", "core"),
        ("foreground", "rest", "given"),
        ("external", "rest", "given"),
    ],
)
def test_the_side_of_the_masks_is_told(tmp_path: Path, method: str, side: str, assumed: str) -> None:
    """It turns neither the shares nor the verdict round: the views are those of the masks.

    No map is blank that does not look at the network.
    """
    plain, found = found_in(write(tmp_path / "plain")), found_in(write(tmp_path, method=method, side=side))
    assert found["side"] == assumed
    assert {**found, "side": "core", "blank": plain["blank"]} == plain
    assert found["blank"]["train"]["count"] == (method == "xgradcam")
    assert ("this verdict is not calibrated" in diagnosis_table.table(found)) == (assumed == "rest")


@pytest.mark.parametrize(
    ("rest", "assumed", "said"),
    [
        ([False] * 3, "core", ""),
        ([True] * 3, "rest", "with saliency.side: rest this verdict is not calibrated"),
        ([True, False, False], "mixed", "with saliency.side: auto this verdict is not calibrated"),
    ],
)
def test_with_auto_it_is_the_side_that_was_taken(
    tmp_path: Path, rest: list[bool], assumed: str, said: str
) -> None:
    found = found_in(write(tmp_path, side="auto", rest=rest))
    assert found["side"] == assumed
    assert assumed in ASSUMPTION
    assert said in diagnosis_table.table(found)
    assert bool(said) == ("not calibrated" in diagnosis_table.table(found))


def test_classes_are_the_labels_whatever_the_maps_explain(tmp_path: Path) -> None:
    """As with `saliency.target: prediction`, where ERM gets three ants wrong."""
    of_predictions = found_in(write(tmp_path / "predicted", target=ORIGINAL))
    assert of_predictions == found_in(write(tmp_path / "labels"))


def test_one_label_has_no_verdict(tmp_path: Path) -> None:
    found = found_in(write(tmp_path, np.zeros(32, int)))
    assert (found["verdict"], found["dependence"]) == ("unknown", "unknown")
    assert found["balanced"]["own"] == pytest.approx((COMBINED == 0).mean())
    assert "the validation images with a mask have one class only." in diagnosis_table.table(found)


def test_without_masks_of_validation_images(tmp_path: Path) -> None:
    found = found_in(write(tmp_path, with_masks=False))
    assert (found["verdict"], found["images"]) == ("unknown", 0)
    assert set(found["blank"]) == {"train"}
    assert "no validation image has a mask" in diagnosis_table.table(found)


def test_the_table_shows_the_numbers(tmp_path: Path) -> None:
    found = found_in(write(tmp_path))
    lines = diagnosis_table.table(found).splitlines()
    assert lines[0].split()[-6:] == ["own", "class", "partner's", "neither", "swayed", "dependence"]
    row = next(number for number, line in enumerate(lines) if line.startswith("bee"))
    numbers = ["100.0", "75.0", "50.0", "95.0", "75.0", "25.0", "0.0", "25.0", "20.0"]
    assert lines[row].split() == ["bee", "20", *numbers]
    low, high = wilson(0.75, 20)
    assert lines[row + 1].split()[1] == f"{100 * low:.1f}–{100 * high:.1f}"
    assert "95 % intervals over validation images like these 32; one run of ERM, the mean of 2 draws" in lines
    assert "blank maps, train: 1 (33.3 %); ant 0, bee 1" in lines
    verdict = lines[lines.index("") + 1]
    assert verdict.startswith("Nothing here speaks against the method's assumption: ERM recognises 75 %")
    assert lines[lines.index("") + 2].startswith("It is not clear whether ERM depends on the background: it")


def test_of_many_classes_those_with_the_most_blank_maps_are_named() -> None:
    counts = [0, 2, 0, 7, *[1] * 9]
    classes = {f"c{number}": {"count": count} for number, count in enumerate(counts)}
    found = {"blank": {"train": {"count": 18, "share": 0.18, "classes": classes}}}
    assert diagnosis_table.blanks(found) == ["blank maps, train: 18 (18.0 %); most: c3 7, c1 2, c4 1"]


@pytest.mark.parametrize(("right", "count"), [(0, 7), (3, 7), (95, 100), (100, 100)])
def test_the_interval_of_a_share_is_wilson_s(right: int, count: int) -> None:
    expected = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson(right / count, count) == pytest.approx((expected.low, expected.high))


def test_the_interval_of_a_mean_of_shares() -> None:
    one = wilson(0.9, 50)
    assert mean_interval(*(np.array([each]) for each in (0.9, *one))) == pytest.approx(one)
    # 95 % of the means of new counts are within it.
    rng, true, counts = np.random.default_rng(0), np.array([0.9, 0.6, 0.8]), np.array([50, 80, 30])
    inside = 0
    for drawn in rng.binomial(counts, true, (2000, 3)) / counts:
        ends = np.array([wilson(share, count) for share, count in zip(drawn, counts, strict=True)])
        low, high = mean_interval(drawn, *ends.T)
        inside += low <= true.mean() <= high
    assert 0.935 < inside / 2000 < 0.965


@pytest.mark.parametrize(("one", "other", "both"), [(0.9, 0.6, 0.58), (0.95, 0.95, 0.93), (0.8, 0.75, 0.6)])
def test_the_interval_of_a_difference_on_the_same_images(one: float, other: float, both: float) -> None:
    """It holds the true difference in 95 % of new sets, or a little more often, and turns round with it."""
    rng, count = np.random.default_rng(0), 80
    shares = [both, one - both, other - both, 1 - one - other + both]  # right: both, one, other, none
    inside = 0
    for cells in rng.choice(4, (2000, count), p=shares):
        first, second = (np.isin(cells, right).astype(float) for right in ([0, 1], [0, 2]))
        low, high = difference_interval(first, second)
        inside += low <= one - other <= high
        assert difference_interval(second, first) == pytest.approx((-high, -low))
    assert 0.935 < inside / 2000 < 0.99


def test_it_needs_no_pytorch() -> None:
    code = "import sys, pipeline.results.diagnosis; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
