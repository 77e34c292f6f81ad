"""A project that no stage made, there in half a second.

It has random images, a random network, and what follows from them: images.h5, erm/, maps.h5, masks.h5,
originals.h5, features.h5, retrained/, baselines/ and sweep/, made from one another as the stages do; and the
image files in raw/. The features are what the network says of the files. The red of an image tells its class,
the blue its attribute; ERM's head goes by the blue, the others by the red.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline import graph, store
from pipeline.metrics import SIGNS, Labels
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.network.inputs import to_input_grid
from pipeline.params.retrain import RetrainParams
from pipeline.project import Opened, Project
from pipeline.results import choice
from pipeline.results.choice import Candidate, Choice
from pipeline.results.convergence import convergence
from pipeline.results.scores import head_scores
from pipeline.schemas import features, images, maps, masks, originals
from pipeline.setting import Setting
from pipeline.spec import IMAGENET, ModelSpec
from pipeline.steps.retrain import retrain
from pipeline.store import FittedHeads
from tests import cached

SPEC = ModelSpec(
    architecture="shufflenet_v2_x0_5",
    classes=("landbird", "waterbird"),
    attributes=("land", "water"),
    stored_size=72,
    to_stored="squash",
    input_size=64,
    to_input="center_crop",
    normalization=IMAGENET,
)
EACH = (4, 2, 3)  # images of each group in train, val and test
COUNT = 4 * sum(EACH)
TOP_K = 0.25
DRAWS = 2
PICKED = Setting(1.0, 2.0)

Array = NDArray[Any]


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The made-up project; not to be changed."""
    return write(tmp_path_factory.mktemp("made_up"))


@pytest.fixture
def own_artefacts(artefacts: Project, tmp_path: Path) -> Project:
    """A copy of the made-up project, to be changed at will."""
    shutil.copytree(artefacts.data.parent, tmp_path / "made_up")
    return graph.project(tmp_path / "made_up" / "data")


def write(
    folder: Path,
    *,
    foregrounds: bool = True,
    spec: ModelSpec = SPEC,
    file_name: str = "{:02}.png",
    kept: Sequence[int] = (),
) -> Project:
    """Write the project into `folder / "data"`, and the image files into `folder / "raw"`.

    Args:
        foregrounds: whether the dataset has true masks.
        spec: of the model; without attributes, those of all images are unknown.
        file_name: of the image files, `{}` for the row.
        kept: the early epochs of ERM whose logits are kept.
    """
    project = graph.project(folder / "data")
    rng = np.random.default_rng(0)
    paths = [file_name.format(row) for row in range(COUNT)]
    _write_images(project, folder / "raw", paths, spec, foregrounds, rng)
    with project.open("images") as given:
        _write_erm(project, given, spec, kept)
    with project.open("images", "erm") as given:
        _write_masks(project, given, rng)
    with project.open("images", "erm", "masks") as given:
        _write_features(project, given, rng)
    with project.open("images", "erm", "features") as given:
        _write_retrained(project, given, rng)
        _write_baselines(project, given, rng)
        _write_sweep(project, given)
    return project


def write_compared(project: Project) -> None:
    """Write what the second pipeline makes: comparison/jtt, comparison/masktune and comparison/ablation."""
    with project.open("images", "erm", "features") as given:
        erm, made_from = given.model("erm"), given.digests("images", "erm")
        for name, title in (("jtt", "JTT"), ("masktune", "MaskTune")):
            row = _row(given, erm.head(), title, f"the paper of {title}", "validation, to choose", {})
            seen = {"test": erm.head().logits(given.file("features")["test/original"][:]).argmax(-1)}
            with store.create_folder(project.path(name)) as out:
                store.write_model(out, name, erm.read(), erm.spec, {}, made_from, answers=seen)
                store.write_json(out / "metrics.json", {"made_from": made_from, **row})
        scores = head_scores(given, erm.head(), "test")
        picked = {"alpha": 1.0, "beta": 2.0, "criterion": "groups", "seeds": 1, "test": scores}
        masks_of = [{"name": name, **picked} for name in ("xgradcam (MaC)", "true masks")]
        found = {
            "made_from": made_from,
            "pixels": 1024,
            "settings": "picked for each",
            "masks": masks_of,
            "differences": [{"name": "true masks − xgradcam (MaC)", "mean": 0.1, "low": -0.1, "high": 0.3}],
        }
        with store.create_folder(project.path("ablation")) as out:
            store.write_json(out / "metrics.json", found)


def _write_images(
    project: Project,
    raw: Path,
    paths: Sequence[str],
    spec: ModelSpec,
    foregrounds: bool,
    rng: np.random.Generator,
) -> None:
    side, classes = spec.stored_size, len(spec.classes)
    pixels = rng.integers(0, 156, (COUNT, side, side, 3), dtype=np.uint8)
    split = np.repeat([0, 1, 2], [4 * n for n in EACH]).astype(np.int8)
    label, attribute = np.arange(COUNT) // 2 % classes, np.arange(COUNT) % 2
    pixels[..., 0] += (100 // (classes - 1) * label).astype(np.uint8)[:, None, None]
    pixels[..., 2] += (100 * attribute).astype(np.uint8)[:, None, None]
    raw.mkdir(parents=True)
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(raw / path)
    names = {"classes": spec.classes, "attributes": spec.attributes}
    made = {"name": "made up", "stored_size": side, "to_stored": spec.to_stored}
    with store.create(project.path("images"), "images", images.SCHEMA, made, {}, **names) as file:
        file.write("image", pixels)
        file.write("label", label.astype(np.int64))
        file.write("attribute", (attribute if spec.attributes else np.full(COUNT, -1)).astype(np.int64))
        file.write("split", split)
        file.write("path", paths)
        if foregrounds:
            file.write("foreground", _boxes(COUNT, side, rng))
            file.write("has_foreground", np.arange(COUNT) != 1)


def _boxes(count: int, side: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A box in each of (count, side, side)."""
    found = np.zeros((count, side, side), np.bool_)
    for mask in found:
        top, left = rng.integers(8, side // 2, 2)
        mask[top : top + side // 4, left : left + side // 4] = True
    return found


def _write_erm(project: Project, given: Opened, spec: ModelSpec, kept: Sequence[int]) -> None:
    model = classifier.build(spec.architecture, len(spec.classes)).eval()
    phi = _phi(model, given.file("images"), spec)
    tensors = {name: tensor.contiguous().numpy() for name, tensor in model.state_dict().items()}
    head = _fitted(phi, np.arange(COUNT) % 2, len(spec.classes))
    tensors |= {"head.weight": head.weight[0], "head.bias": head.bias[0]}
    made = {
        "train": {"select": "last", "hold_out": 0.0, "seed": 0, "weight_decay": 0.001},
        "selection": {"criterion": "groups" if spec.attributes else "soft_errors"},
    }
    history = []
    for epoch in (1, 2):
        history.append({"epoch": epoch, "val_worst": 0.1 * epoch, "val_mean": 0.2 * epoch})
    with store.create_folder(project.path("erm")) as out:
        others = {"early": cached.early(kept, 4 * EACH[0])} if kept else {}
        store.write_model(out, "erm", tensors, spec, made, given.digests("images"), **others)
        store.write_csv(out / "history.csv", history)
        store.write_json(out / "metrics.json", {"val": {"worst_group": 0.2}})


def _phi(model: Classifier, stored: store.Artefact, spec: ModelSpec) -> NDArray[np.float32]:
    """φ of all images, (N, D)."""
    grid = to_input_grid(torch.from_numpy(stored["image"][:]), spec)
    with torch.no_grad():
        return np.asarray(model.features(model.input(grid)).numpy())


def _fitted(phi: NDArray[np.float32], seen: Array, classes: int) -> FittedHeads:
    """A head that sees the class `seen` (N,) in φ (N, D), by ridge regression; S = 1."""
    mean = phi.mean(0)
    centred = (phi - mean).astype(np.float64)
    gram = centred @ centred.T
    ridge = 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram))
    wanted = 2 * np.eye(classes)[seen] - 1
    weight = (centred.T @ np.linalg.solve(gram + ridge, wanted)).T.astype(np.float32)
    return FittedHeads(weight[None], -(weight @ mean)[None])


def _write_masks(project: Project, given: Opened, rng: np.random.Generator) -> None:
    rows = np.flatnonzero(given.file("images")["split"][:] == 0)
    side = given.model("erm").spec.input_size
    made = {"size": "top_k", "top_k": TOP_K, "method": "xgradcam", "side": "core", "flip": False}
    label, split = (given.file("images")[name][:] for name in ("label", "split"))
    parts = {"": (rows, rng), "val/": (np.flatnonzero(split == 1), np.random.default_rng(1))}
    looked, cores = {}, {}
    for part, (of, drawn) in parts.items():
        core = np.zeros((len(of), side, side), np.bool_)
        for mask in core:
            mask.reshape(-1)[drawn.permutation(side * side)[: round(TOP_K * side * side)]] = True
        looked |= {f"{part}row": of, f"{part}target": label[of]}
        looked[f"{part}cam"] = drawn.normal(size=(len(of), 2, 2)).astype(np.float32)
        looked[f"{part}channel_mean"] = drawn.random((len(of), 3), dtype=np.float32)
        cores[f"{part}mask"] = core
    made_from = given.digests("images", "erm")
    stated = {"method": "xgradcam", "flip": False, "precision": "float32"}
    with store.create(project.path("maps"), "maps", maps.SCHEMA, stated, made_from) as file:
        for name, values in looked.items():
            file.write(name, values)
    with project.open("images", "erm", "maps") as also:
        made_from = also.digests("images", "erm", "maps")
    with store.create(project.path("masks"), "masks", masks.SCHEMA, made, made_from) as file:
        for name, values in {**looked, **cores}.items():
            file.write(name, values)
        file.file.create_group("preview")


def _write_features(project: Project, given: Opened, rng: np.random.Generator) -> None:
    stored, erm = given.file("images"), given.model("erm")
    phi = _phi(classifier.load(erm.spec, erm.read(), torch.device("cpu")), stored, erm.spec)
    names = {name: stored.attribute(name) for name in ("classes", "attributes")}
    split, copied = stored["split"][:], {}
    for number, name in enumerate(store.SPLITS):
        rows = np.flatnonzero(split == number)
        copied |= {f"{name}/original": phi[rows], f"{name}/row": rows}
        for column in ("label", "attribute"):
            copied[f"{name}/{column}"] = stored[column][:][rows]
    out, made_from = project.path("originals"), given.digests("images", "erm")
    stated = {"precision": "float32"}
    with store.create(out, "originals", originals.SCHEMA, stated, made_from, **names) as file:
        for name, values in copied.items():
            file.write(name, values)
    with project.open("images", "erm", "originals", "masks") as also:
        made_from = also.digests("images", "erm", "originals", "masks")
    with store.create(project.path("features"), "features", features.SCHEMA, {}, made_from, **names) as file:
        for name, values in copied.items():
            file.write(name, values)
        count = int((split == 0).sum())
        for view in ("masked", "combined"):
            file.write(f"train/{view}", rng.normal(size=(DRAWS, count, phi.shape[1])).astype(np.float32))
        partner = np.stack([np.roll(np.arange(count), 2 + draw) for draw in range(DRAWS)])
        file.write("train/partner", partner.astype(np.int32))
        file.write("train/batch", np.zeros((DRAWS, count), np.int32))
        file.write("train/order", np.tile(np.arange(count, dtype=np.int32), (DRAWS, 1)))
        file.write("train/fill", rng.random((DRAWS, count, 3), dtype=np.float32))
        label = stored["label"][:]
        _write_views_of_validation(file, phi[split == 1], label[split == 1], label[split == 0])


def _write_views_of_validation(
    file: store.Writer, phi: NDArray[np.float32], own: Array, theirs: Array
) -> None:
    """The core alone has the features of the image, the rest alone those of the next image.

    On an image of its class, it has its own too.
    """
    count, rng = len(phi), np.random.default_rng(1)
    file.write("val/position", np.arange(count))
    file.write("val/masked", phi[None])
    file.write("val/rest", np.roll(phi, 1, 0)[None])
    file.write("val/combined", phi[None] + rng.normal(size=(1, *phi.shape)).astype(np.float32))
    file.write("val/combined_same", phi[None])
    another = np.array([[np.flatnonzero(theirs != each)[0] for each in own]])
    same = np.array([[np.flatnonzero(theirs == each)[0] for each in own]])
    file.write("val/train_partner", another.astype(np.int32))
    file.write("val/train_partner_same", same.astype(np.int32))
    file.write("val/batch", np.zeros((1, count), np.int32))
    file.write("val/fill", rng.random((1, count, 3), dtype=np.float32))


def _heads(given: Opened, count: int, rng: np.random.Generator) -> FittedHeads:
    """Heads that go by the class, each a little different."""
    cached = given.file("features")
    phi = np.concatenate([cached[f"{split}/original"][:] for split in store.SPLITS])
    label = np.concatenate([cached[f"{split}/label"][:] for split in store.SPLITS])
    head = _fitted(phi, label, len(given.groups.classes))
    scale = rng.uniform(0.5, 1.5, (count, 1, 1)).astype(np.float32)
    return FittedHeads(head.weight * scale, head.bias * scale[:, 0])


def _write_retrained(project: Project, given: Opened, rng: np.random.Generator) -> None:
    heads, erm = _heads(given, 2, rng), given.model("erm")
    made = {**asdict(Choice.by_params(1.0, 2.0, 0.0)), "solver": "adam", "head_seed": 1}
    known = bool(erm.spec.attributes)
    made |= {
        "criterion": "groups" if known else "soft_errors",
        "labels": "validation, to choose" if known else "none",
    }
    tensors = erm.read() | {"head.weight": heads.weight[1], "head.bias": heads.bias[1]}
    history = []
    for seed in (0, 1):
        history.append({"seed": seed, "epoch": 1, "val_worst": 0.5, "val_mean": 0.6})
    with store.create_folder(project.path("retrained")) as out:
        both = {"weight": heads.weight, "bias": heads.bias}
        made_from = given.digests("features", "erm")
        store.write_model(out, "retrained", tensors, erm.spec, made, made_from, head=both)
        store.write_csv(out / "history.csv", history)
        store.write_json(out / "metrics.json", {"head_seed": 1})


def _write_baselines(project: Project, given: Opened, rng: np.random.Generator) -> None:
    erm = given.model("erm")
    fitted = {"erm": erm.head(), "dfr": _heads(given, 3, rng), "llr": _heads(given, 2, rng)}
    rows = {
        "erm": _row(given, fitted["erm"], "ERM", "the head as trained", "none", {}),
        "dfr": _row(
            given,
            fitted["dfr"],
            "DFR",
            "Kirichenko et al. 2023",
            "validation, to train",
            {"C": [0.1, 0.2, 0.3]},
        ),
        "llr": _row(given, fitted["llr"], "LLR", "plain retraining", "validation, to choose", {}),
    }
    tensors: dict[str, Array] = {}
    for name, heads in fitted.items():
        tensors |= {f"{name}.weight": heads.weight, f"{name}.bias": heads.bias}
    made_from = given.digests("features", "erm")
    found = {
        "made_from": made_from,
        "methods": rows,
        "left_out": {"afr": {"title": "AFR", "reason": "train.hold_out is 0"}},
        "convergence": convergence(given),
    }
    with store.create_folder(project.path("baselines")) as out:
        store.write_model(out, "baselines", tensors, erm.spec, {"methods": list(fitted)}, made_from)
        store.write_json(out / "metrics.json", found)


def _row(
    given: Opened, heads: FittedHeads, title: str, source: str, labels: Labels, chosen: dict[str, Any]
) -> dict[str, Any]:
    return {
        "title": title,
        "source": source,
        "labels": labels,
        "sign": SIGNS[labels],
        "chosen": chosen,
        "note": "",
        "seeds": len(heads),
        "head_seed": len(heads) - 1,
        "val": head_scores(given, heads, "val"),
        "test": head_scores(given, heads, "test"),
    }


def _write_sweep(project: Project, given: Opened, picked: Candidate = PICKED) -> None:
    scores = {"val_worst": 0.5, "val_mean": 0.6, "test_worst": 0.4, "test_mean": 0.7}
    rows = []
    for setting in (None, *(Setting(*pair) for pair in product((0.0, 1.0), (0.0, 2.0)))):
        alpha, beta, _ = setting or (None, None, None)
        rows.append({"alpha": alpha, "beta": beta, **scores, "picked": int(setting == picked)})
    of_groups = [{"alpha": row["alpha"], "beta": row["beta"], f"{choice.OF_GROUP}a": 0.4} for row in rows]
    (found,) = (row for row in rows if row["picked"])
    why = f"validation prefers {choice.named(picked)}" if picked else choice.NOT_RETRAINED
    about = {"picked": "setting" if picked else "erm", "erm": scores, "plain": scores, "reason": why}
    with store.create_folder(project.path("sweep")) as out:
        store.write_csv(out / "mean.csv", rows)
        store.write_csv(out / "groups.csv", of_groups)
        made = {
            "made_from": given.digests("features", "erm"),
            "criterion": "groups" if given.groups.attributes else "soft_errors",
        }
        store.write_json(out / "metrics.json", {**made, **found, **about})


def prefer_erm(project: Project) -> None:
    """Let the sweep pick ERM as it is, and run stage retrain with α and β auto."""
    with project.open("features", "erm") as given:
        _write_sweep(project, given, None)
    params = RetrainParams(**cached.FIT.model_dump(), alpha="auto", beta="auto")
    with project.open("features", "erm", "sweep") as given:
        retrain(given, project.path("retrained"), params, cached.AUTO, cached.context(project.data))
