"""What is in an artefact: as text, and one training image as a picture (`mac inspect`)."""

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline import evaluate, interventions, store, visual
from pipeline.errors import MacError
from pipeline.inputs import to_input_grid
from pipeline.masks import coverage, upsample
from pipeline.metrics import Groups
from pipeline.store import Artefact

READ_ROWS = 512


def describe(path: Path) -> str:
    """Datasets, parameters and provenance of any artefact; for masks.h5 also each group's coverage; the table of metrics.json.

    Groups and foregrounds come from the images.h5 beside it, where there is one.
    """
    if path.is_dir():
        return _describe_model(path)
    if path.suffix == ".json":
        return _describe_metrics(path)
    with store.open_artefact(path) as artefact:
        lines = [f"{path}: {artefact.kind}, schema version {store.VERSION}", *_provenance_lines(artefact.provenance)]
        lines += ["", *_dataset_lines(artefact.file)]
        if artefact.kind == "images":
            lines += ["", *_group_lines(artefact)]
        if artefact.kind == "masks":
            lines += ["", *_coverage_lines(artefact)]
    return "\n".join(lines)


def _describe_model(path: Path) -> str:
    kind = next((kind for kind in ("erm", "retrained") if _schema(path) == kind), "erm")
    folder = store.open_model(path, kind)
    tensors = folder.read()
    lines = [f"{path}: {kind}, schema version {store.VERSION}", *_provenance_lines(folder.provenance), "", "model"]
    lines += [f"  {key}: {_inline(value)}" for key, value in folder.spec.items()]
    lines += [f"  parameters: {sum(tensor.size for tensor in tensors.values()):,}, head {tensors['head.weight'].shape}"]
    metrics = path / "metrics.json"
    if metrics.is_file():
        lines += ["", "metrics", *(f"  {line}" for line in metrics.read_text().splitlines())]
    return "\n".join(lines)


def _describe_metrics(path: Path) -> str:
    try:
        return evaluate.table(json.loads(path.read_text()))
    except OSError as error:
        raise MacError(f"{path}: cannot be read ({error.strerror}); run 'mac evaluate'") from None
    except (ValueError, KeyError, TypeError) as error:
        raise MacError(f"{path}: is not the metrics.json that 'mac evaluate' writes ({type(error).__name__}: {error})") from None


def _schema(path: Path) -> object:
    try:
        return json.loads((path / "model.json").read_text()).get("schema")
    except (OSError, ValueError, AttributeError):
        return None


def _provenance_lines(provenance: store.Provenance) -> list[str]:
    lines = [f"digest {provenance.digest}"]
    lines += [f"made from {source} {digest}" for source, digest in sorted(provenance.made_from.items())]
    return [*lines, "", "params", *(f"  {key}: {_inline(value)}" for key, value in provenance.params.items())]


def _inline(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def _dataset_lines(file: h5py.File) -> list[str]:
    found: list[h5py.Dataset] = []
    file.visititems(lambda name, item: found.append(item) if isinstance(item, h5py.Dataset) and not name.startswith("preview/") else None)
    lines = ["datasets"]
    for dataset in found:
        dims = ", ".join(f"{dim.label} {length}" for dim, length in zip(dataset.dims, dataset.shape, strict=True))
        kind = "utf-8" if dataset.dtype.kind == "S" else str(dataset.dtype)
        lines.append(f"  {dataset.name[1:]:<16} {kind:<8} ({dims}): {dataset.attrs.get('about', '')}")
    if "preview" in file:
        lines.append(f"  preview/         {len(file['preview'])} pictures for HDF viewers")
    return lines


def _group_lines(images: Artefact) -> list[str]:
    groups, split = Groups.of(images), images["split"][:]
    lines = [f"{'images':<24}{'train':>8}{'val':>8}{'test':>8}"]
    described = groups.described(images["label"][:], images["attribute"][:])
    counts = [np.bincount(described.index[split == s], minlength=len(described.names)) for s in range(3)]
    lines += [f"{name:<24}" + "".join(f"{count[g]:>8}" for count in counts) for g, name in enumerate(described.names)]
    if "has_foreground" in images:
        lines.append(f"true masks: {int(images['has_foreground'][:].sum())} of {len(split)}")
    return lines


def _coverage_lines(masks: Artefact) -> list[str]:
    beside = masks.path.with_name("images.h5")
    if not beside.is_file():
        return [f"coverage by group: needs {beside}"]
    with store.open_artefact(beside, "images") as images:
        masks.provenance.require("masks", masks.path, {"images": images.digest})
        table = mask_coverage(images, masks)
    if np.isnan(table["mask_fg"]).all():
        return ["coverage by group: the dataset has no true masks"]
    lines = [f"{'mean coverage, %':<24}{'n':>8}{'Mask/FG':>10}{'Mask/BG':>10}"]
    for name, n, inside, outside in zip(table["group"], table["n"], table["mask_fg"], table["mask_bg"], strict=True):
        lines.append(f"{name:<24}{n:>8}{100 * inside:>10.1f}{100 * outside:>10.1f}")
    return lines


def mask_coverage(images: Artefact, masks: Artefact) -> dict[str, NDArray[np.generic]]:
    """Mask/FG and Mask/BG per group (paper Table 1), over the rows whose true mask is known.

    Returns:
        Columns `group` (name), `n` (rows with a true mask), `mask_fg`, `mask_bg` (means in [0, 1], NaN where n is 0).
    """
    groups, rows = Groups.of(images), masks["row"][:]
    described = groups.described(images["label"][:][rows], images["attribute"][:][rows])
    known = images["has_foreground"][:][rows] if "has_foreground" in images else np.zeros(len(rows), np.bool_)
    inside, outside = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for samples in _blocks(np.flatnonzero(known)):
        foreground = _grid(images, images.rows("foreground", rows[samples]))
        covered = coverage(torch.from_numpy(masks.rows("mask", samples)), foreground)
        inside[samples], outside[samples] = (part.numpy() for part in covered)
    members = [(described.index == g) & known & ~np.isnan(inside) for g in range(len(described.names))]
    return {
        "group": np.array(described.names),
        "n": np.array([m.sum() for m in members]),
        "mask_fg": np.array([inside[m].mean() if m.any() else np.nan for m in members]),
        "mask_bg": np.array([outside[m].mean() if m.any() else np.nan for m in members]),
    }


def _blocks(samples: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(samples), READ_ROWS):
        yield samples[start : start + READ_ROWS]


def _grid(images: Artefact, stored: NDArray[np.generic]) -> torch.Tensor:
    params = images.provenance.params
    return to_input_grid(torch.from_numpy(stored), params["input_size"], params["to_input"])


def picture(masks_path: Path, row: int) -> Image.Image:
    """Original, map, mask, masked and combined (draw 0) of one row of images.h5, side by side with captions.

    Reads the images.h5 and features.h5 beside `masks_path`.

    Raises:
        MacError: the row has no mask, or the files do not belong together.
    """
    with (
        store.open_artefact(masks_path, "masks") as masks,
        store.open_artefact(masks_path.with_name("images.h5"), "images") as images,
        store.open_artefact(masks_path.with_name("features.h5"), "features", {"images": images.digest, "masks": masks.digest}) as features,
    ):
        masks.provenance.require("masks", masks_path, {"images": images.digest})
        rows = masks["row"][:]
        found = np.flatnonzero(rows == row)
        if len(found) == 0:
            raise MacError(f"{masks_path}: row {row} has no mask; it holds {len(rows)} rows from {rows.min()} to {rows.max()}")
        i = int(found[0])
        j = int(features["train/partner"][0, i])
        x_i, x_j = (_grid(images, images["image"][int(rows[k])][None]).float() / 255 for k in (i, j))
        m_i, m_j = (torch.from_numpy(masks["mask"][k][None, None]) for k in (i, j))
        b = torch.from_numpy(features["train/fill"][0, i]).view(1, 3, 1, 1)
        cam = upsample(torch.from_numpy(masks["cam"][i][None]), m_i.shape[-1])[0].numpy()
        groups = Groups.of(images)
        described = groups.described(*(images.rows(name, rows[[i, j]]) for name in ("label", "attribute")))
        names = [described.names[g] for g in described.index]
        target = groups.classes[int(masks["target"][i])]
    original = visual.to_picture(x_i[0].numpy())
    panels = {
        f"row {row}, {names[0]}": original,
        f"map for {target}": visual.heat(cam),
        "mask": visual.overlay(original, m_i[0, 0].numpy()),
        "masked": visual.to_picture(interventions.masked(x_i, m_i, b)[0].numpy()),
        f"combined, {names[1]}": visual.to_picture(interventions.combined(x_i, m_i, x_j, m_j, b)[0].numpy()),
    }
    return _strip(panels)


def _strip(panels: dict[str, visual.Picture], side: int = 240, gap: int = 8, caption: int = 22) -> Image.Image:
    """Panels in a row, each scaled to `side` pixels under its caption."""
    strip = Image.new("RGB", (len(panels) * (side + gap) + gap, side + caption + gap), "white")
    draw = ImageDraw.Draw(strip)
    for number, (name, panel) in enumerate(panels.items()):
        left = gap + number * (side + gap)
        draw.text((left, 4), name, fill="black", font=ImageFont.load_default(14))
        strip.paste(Image.fromarray(panel).resize((side, side), Image.Resampling.BICUBIC), (left, caption))
    return strip
