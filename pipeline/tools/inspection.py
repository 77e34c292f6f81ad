"""What is in an artefact: as text, and one training image as a picture (`mac inspect`).

What needs torch is imported where it is used: most of this does not, and is there at once.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from pipeline import store
from pipeline.errors import MacError
from pipeline.metrics import Groups
from pipeline.results import sheets, tables
from pipeline.store import Artefact


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


def as_dict(path: Path) -> dict[str, Any]:
    """Kind, parameters, provenance and datasets of an artefact, JSON-able; of a JSON file what is in it."""
    if path.suffix == ".json":
        _describe_metrics(path)  # refuses what is none of ours
        return dict(json.loads(path.read_text()))
    if path.is_dir():
        folder = store.open_model(path, store.model_kind(path))
        about: dict[str, Any] = {"kind": store.model_kind(path), "spec": dict(folder.spec)}
        return about | _provenance(folder.provenance)
    with store.open_artefact(path) as artefact:
        datasets = {
            name: {"dtype": str(artefact[name].dtype), "shape": list(artefact[name].shape), "about": field.about}
            for name, field in store.SCHEMAS[artefact.kind].items()
            if name in artefact
        }
        return {"kind": artefact.kind, "datasets": datasets} | _provenance(artefact.provenance)


def _provenance(provenance: store.Provenance) -> dict[str, Any]:
    return {"digest": provenance.digest, "made_from": dict(provenance.made_from), "params": dict(provenance.params)}


def _describe_model(path: Path) -> str:
    kind = store.model_kind(path)
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
    """The table of metrics.json, of baselines.json, or of the ablation's metrics.json."""
    try:
        found = json.loads(path.read_text())
        if "methods" in found:
            return tables.of_baselines(found)
        return tables.of_ablation(found) if "differences" in found else tables.of_metrics(found)
    except OSError as error:
        raise MacError(f"{path}: cannot be read ({error.strerror}); run 'mac evaluate'") from None
    except (ValueError, KeyError, TypeError) as error:
        raise MacError(
            f"{path}: is neither a metrics.json nor a baselines.json that mac writes ({type(error).__name__}: {error})"
        ) from None


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
    from pipeline.results.coverage import coverage

    with store.open_artefact(beside, "images") as images:
        masks.provenance.require("masks", masks.path, {"images": images.digest})
        table = coverage(images, masks)
    if not any(row.n for row in table):
        return ["coverage by group: the dataset has no true masks"]
    lines = [f"{'mean coverage, %':<24}{'n':>8}{'Mask/FG':>10}{'Mask/BG':>10}"]
    return lines + [f"{row.group:<24}{row.n:>8}{100 * row.mask_fg:>10.1f}{100 * row.mask_bg:>10.1f}" for row in table]


def picture(masks_path: Path, row: int) -> Image.Image:
    """Original, map, mask, masked and combined (draw 0) of one row of images.h5, side by side with captions.

    Reads the images.h5 and features.h5 beside `masks_path`.

    Raises:
        MacError: the row has no mask, or the files do not belong together.
    """
    from pipeline.results.pictures import training_example

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
        example = training_example(images, masks, features, int(found[0]))
    panels = {
        f"row {row}, {example.group}": example.original,
        f"map for {example.target}": example.heat,
        "mask": example.core,
        "masked": example.masked,
        f"combined, {example.partner_group}": example.combined,
    }
    return sheets.strip(panels)
