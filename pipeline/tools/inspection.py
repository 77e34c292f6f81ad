"""Shows what is in an artefact: as text, as JSON, and one training image as a picture (`mac inspect`).

PyTorch is imported only where it is used, so most of this is fast.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import graph, store
from pipeline.errors import MacError
from pipeline.metrics import Groups
from pipeline.project import read_table
from pipeline.results import evaluation, sheets, tables
from pipeline.results.blanks import blank_in
from pipeline.results.blocks import in_blocks
from pipeline.schemas import tables as declared
from pipeline.schemas.maps import PARTS
from pipeline.store import SPLITS, Artefact, ModelFolder, Provenance
from pipeline.study import table as of_runs
from pipeline.tools.single import open_single

PREVIEWS = "preview"  # the group of masks.h5 with pictures for HDF viewers


def describe(path: Path) -> str:
    """An artefact as text: its datasets or its network, its parameters, and what it was made from.

    For images.h5, also the number of images by group. For maps.h5, a table of its maps. For masks.h5, also
    how many maps are blank, and how much of the true foregrounds the masks cover; images.h5 and erm/ must
    then be in the same folder. For metrics.json, the table.

    Raises:
        MacError: it is missing, damaged, or nothing that MaC writes.
    """
    if path.suffix == ".json":
        return _table_of(_read_metrics(path), path)
    with open_single(path) as (kind, given):
        head = f"{path}: {kind.name}, schema version {store.VERSION}"
        if kind.form == "model":
            return "\n".join([head, *_model_lines(given.model(kind.name), kind.name)])
        artefact = given.file(kind.name)
        lines = [head, *_provenance_lines(artefact.provenance), "", *_dataset_lines(artefact)]
        if kind.name == "images":
            lines += ["", *_group_lines(artefact)]
        if kind.name == "maps":
            lines += ["", *_map_lines(artefact)]
        if kind.name == "masks":
            lines += ["", _blank_line(artefact)]
    if kind.name == "masks":
        lines += _coverage_lines(path)
    return "\n".join(lines)


def as_dict(path: Path) -> dict[str, Any]:
    """An artefact as a JSON-able dict: kind, parameters, digests and datasets; for a JSON file, its contents.

    Raises:
        MacError: it is missing, damaged, or nothing that MaC writes.
    """
    if path.suffix == ".json":
        found = _read_metrics(path)
        _table_of(found, path)  # raises if MaC does not write such files
        return found
    with open_single(path) as (kind, given):
        about: dict[str, Any] = {"kind": kind.name}
        if kind.form == "model":
            folder = given.model(kind.name)
            return about | {"spec": asdict(folder.spec)} | _provenance(folder.provenance)
        artefact = given.file(kind.name)
        about["datasets"] = {}
        for name in artefact:
            shape = {"dtype": str(artefact.stored(name)), "shape": list(artefact[name].shape)}
            about["datasets"][name] = shape | {"about": artefact.about(name)}
        return about | _provenance(artefact.provenance)


def _provenance(provenance: Provenance) -> dict[str, Any]:
    return {
        "digest": provenance.digest,
        "made_from": dict(provenance.made_from),
        "params": dict(provenance.params),
    }


def _read_metrics(path: Path) -> dict[str, Any]:
    return store.read_json(path, "see 'mac --help'")


def _table_of(found: dict[str, Any], path: Path) -> str:
    """The table of a metrics.json of evaluate, baselines, ablation or study-run, or of study.json."""
    try:
        if "variants" in found:
            _require_declared(found, "study")
            return of_runs.of_study(found)
        if "variant" in found:
            _require_declared(found, "run")
            return f"{found['variant']}, seed {found['seed']}\n{tables.of_baselines(found)}"
        if "methods" in found:
            _require_declared(found, "baselines")
            return tables.of_baselines(found)
        if "differences" in found:
            _require_declared(found, "ablation")
            return tables.of_ablation(found)
        if {"erm", "mac"} <= found.keys():
            _require_current(found, path)
        _require_declared(found, "metrics")
        return evaluation.in_words(found)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise MacError(
            f"{path}: is no metrics.json of evaluate, baselines, ablation or study-run, nor study.json "
            f"({reason})"
        ) from None


def _require_declared(found: Mapping[str, Any], kind: str) -> None:
    if problem := declared.problem(found, kind):
        raise ValueError(problem)


def _require_current(found: Mapping[str, Any], path: Path) -> None:
    """Raise an error if the metrics.json of evaluate lacks what earlier versions did not write."""
    if missing := [key for key in ("setting", "diagnosis", "compared") if key not in found]:
        remedy = graph.project(path.parent).kinds["metrics"].remedy
        raise MacError(f"{path}: does not state {', '.join(missing)}; {remedy}")


def _model_lines(folder: ModelFolder, kind: str) -> list[str]:
    lines = [*_provenance_lines(folder.provenance), "", "model"]
    lines += _indented(asdict(folder.spec))
    tensors = folder.read()
    lines.append(f"  parameters: {sum(tensor.size for tensor in tensors.values()):,}")
    for name, tensor in tensors.items():
        if name.endswith(".weight") and not name.startswith("trunk."):
            lines.append(f"  {name}: {tensor.shape}")
    metrics = folder.path / "metrics.json"
    if metrics.is_file():
        shown = declared.shown(read_table(metrics, kind, "see 'mac --help'"), kind)
        said = json.dumps(shown, indent=2, ensure_ascii=False)
        lines += ["", "metrics", *(f"  {line}" for line in said.splitlines())]
    return lines


def _provenance_lines(provenance: Provenance) -> list[str]:
    lines = [f"digest {provenance.digest}"]
    lines += [f"made from {source} {digest}" for source, digest in sorted(provenance.made_from.items())]
    return [*lines, "", "params", *_indented(provenance.params)]


def _indented(values: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, value in values.items():
        is_nested = isinstance(value, (dict, list, tuple))
        lines.append(f"  {key}: {json.dumps(value, ensure_ascii=False) if is_nested else value}")
    return lines


def _dataset_lines(artefact: Artefact) -> list[str]:
    lines = ["datasets"]
    for name in artefact:
        dataset = artefact[name]
        axes = zip(artefact.axes(name), dataset.shape, strict=True)
        dims = ", ".join(f"{axis} {length}" for axis, length in axes)
        dtype = "utf-8" if dataset.dtype.kind == "S" else str(artefact.stored(name))
        lines.append(f"  {name:<16} {dtype:<8} ({dims}): {artefact.about(name)}")
    pictures = artefact.count_of_group(PREVIEWS)
    if pictures is not None:
        lines.append(f"  {PREVIEWS + '/':<16} {pictures} pictures for HDF viewers")
    return lines


def _group_lines(images: Artefact) -> list[str]:
    split = images["split"][:]
    described = Groups.of(images).described(images["label"][:], images["attribute"][:])
    lines = [f"{'images':<24}" + "".join(f"{name:>8}" for name in SPLITS)]
    for group, name in enumerate(described.names):
        count = np.bincount(split[described.index == group], minlength=len(SPLITS))
        lines.append(f"{name:<24}" + "".join(f"{n:>8}" for n in count))
    if "has_foreground" in images:
        lines.append(_true_mask_line(images))
    return lines


def _true_mask_line(images: Artefact) -> str:
    known = np.flatnonzero(images["has_foreground"][:])
    empty = full = 0
    for rows in in_blocks(known, images["foreground"]) if len(known) else ():
        masks = images.rows("foreground", rows)
        empty += int((~masks.any((1, 2))).sum())
        full += int(masks.all((1, 2)).sum())
    line = f"true masks: {len(known)} of {len(images['has_foreground'])}"
    return f"{line}; {empty} have no foreground, {full} have nothing but foreground"


def _map_lines(maps: Artefact) -> list[str]:
    """How many maps of maps.h5 are blank, how much of them is positive, and the range of their scores."""
    method = str(maps.provenance.params.get("method"))
    if "cam" not in maps:
        return ["no maps: the masks are given"]
    lines = [f"{'maps':<24}{'n':>8}{'blank':>8}{'positive, %':>13}{'lowest':>11}{'highest':>11}"]
    for part, about in PARTS.items():
        if f"{part}cam" not in maps:
            continue
        cam, positive, lowest, highest = maps[f"{part}cam"], 0, np.inf, -np.inf
        for each in in_blocks(np.arange(len(cam)), cam):
            scores = cam[each[0] : each[-1] + 1]
            positive += int((scores > 0).sum())
            lowest, highest = min(lowest, scores.min()), max(highest, scores.max())
        blank = int(blank_in(cam, method).sum())
        share = 100 * positive / cam.size
        lines.append(f"{about:<24}{len(cam):>8}{blank:>8}{share:>13.1f}{lowest:>11.3g}{highest:>11.3g}")
    return lines


def _blank_line(masks: Artefact) -> str:
    """How many maps of masks.h5 are blank."""
    method = str(masks.provenance.params.get("method"))
    said = []
    for part, about in (("", "of the retraining set"), ("val/", "of validation")):
        if f"{part}cam" in masks:
            blank = blank_in(masks[f"{part}cam"], method)
            said.append(f"{blank.sum()} of {len(blank)} {about}")
    return f"blank maps: {', '.join(said)}"


def _coverage_lines(path: Path) -> list[str]:
    """How much of the true foregrounds the masks cover, from the images.h5 and erm/ in the same folder."""
    project = graph.project(path.parent, masks=path)
    for name in ("images", "erm"):
        if not project.path(name).exists():
            return [f"coverage by group: needs {project.path(name)}"]
    from pipeline.results.coverage import by_group

    with project.open("images", "erm", "masks") as given:
        images = given.file("images")
        any_known = "has_foreground" in images and bool(images["has_foreground"][:].any())
        table = by_group(images, given.file("masks"), given.model("erm").spec)
    if not any(row.n for row in table):
        if any_known:
            return ["coverage by group: no true mask has both foreground and background"]
        return ["coverage by group: the dataset has no true masks"]
    lines = [f"{'mean coverage, %':<24}{'n':>8}{'Mask/FG':>10}{'Mask/BG':>10}"]
    for row in table:
        lines.append(f"{row.group:<24}{row.n:>8}{100 * row.mask_fg:>10.1f}{100 * row.mask_bg:>10.1f}")
    return lines


def picture(path: Path, row: int) -> Image.Image:
    """One row of images.h5 as a strip: image, map, core, and its masked and combined views of draw 0.

    Args:
        path: a masks.h5, with images.h5, erm/ and features.h5 in the same folder.

    Raises:
        MacError: the row has no mask, or the artefacts do not belong together.
    """
    from pipeline.results.pictures import training_example

    project = graph.project(path.parent, masks=path)
    with project.open("masks", "images", "erm", "features") as given:
        rows = given.file("masks")["row"][:]
        found = np.flatnonzero(rows == row)
        if len(found) == 0:
            raise MacError(
                f"{path}: row {row} has no mask; it holds {len(rows)} rows from {rows.min()} to {rows.max()}"
            )
        example = training_example(given, int(found[0]))
    panels = {
        f"row {row}, {example.group}": example.original,
        f"map for {example.target}": example.map,
        "core": example.core,
        "masked": example.masked,
        f"combined, {example.partner_group}": example.combined,
    }
    return sheets.strip(panels)
