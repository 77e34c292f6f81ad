"""Stage ablation: how much the masks matter. MaC with random masks of the same size, and with true masks."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline import store
from pipeline.compute.context import Context
from pipeline.compute.device import hardware_of
from pipeline.compute.engine import Scratch
from pipeline.compute.progress import log
from pipeline.errors import MacError
from pipeline.last_layer.grid import fit_grid, scores_of_test_split
from pipeline.made_with import require_made_with
from pipeline.method.kinds import CONTROLS
from pipeline.method.retraining_set import with_foreground
from pipeline.params.block import Block
from pipeline.params.cores import CoreParams
from pipeline.params.features import FeaturesParams
from pipeline.params.fit import FitParams
from pipeline.params.maps import MapParams
from pipeline.params.selection import SelectionParams
from pipeline.params.sweep import GridParams
from pipeline.project import Opened, Project
from pipeline.results import tables
from pipeline.results.blocks import in_blocks
from pipeline.results.choice import named, names_of
from pipeline.results.scores import head_scores
from pipeline.schemas.masks import SCHEMA
from pipeline.steps.features import features as write_features
from pipeline.steps.masks import empty_cores, write_masks
from pipeline.steps.saliency import write_maps
from pipeline.store import FittedHeads

OWN = "for each kind of mask its own best ones, by validation"
DEFAULT = "for each kind of mask the default ones (sweep.default)"
OWN_L2 = ", and its own best l2, by validation"


def ablation(
    given: Opened,
    out: Path,
    maps: MapParams,
    cores: CoreParams,
    features: FeaturesParams,
    sweep: GridParams,
    fit: FitParams,
    selection: SelectionParams,
    context: Context,
) -> str:
    """Write the folder `out` with metrics.json; return the table to print.

    Args:
        given: images, erm, originals, masks and features.

    Raises:
        MacError: as `compare`.
    """
    result = compare(given, maps, cores, features, sweep, fit, selection, context).result
    with store.create_folder(out) as written:
        store.write_json(written / "metrics.json", result)
    return tables.of_ablation(result)


@dataclass(frozen=True)
class Compared:
    """The kinds of masks, compared.

    Attributes:
        result: what metrics.json has.
        kinds: `own`, MaC's; `random`; and where true masks are known, `own_known`, MaC's of the images that
            have one, if not all have; and `true`.
    """

    result: dict[str, Any]
    kinds: "dict[str, Measured]"


def compare(
    given: Opened,
    maps: MapParams,
    cores: CoreParams,
    features: FeaturesParams,
    sweep: GridParams,
    fit: FitParams,
    selection: SelectionParams,
    context: Context,
) -> Compared:
    """Retrain with each kind of masks, and measure.

    All kinds of masks have the same seeds, and the same draws if they have the same images. If the criterion
    picks α and β (`sweep.pick`), each kind has its own best ones, else the default ones; and its own l2 if it
    is auto. If only some training images have a true mask with foreground on the input grid, the true masks
    are compared with MaC's masks of those images only; and not at all if these are of one class.

    Args:
        given: images, erm, originals, masks and features.

    Raises:
        MacError: saliency.method is itself a control, or the project's masks or features were made with
            other parameters than these.
    """
    method = maps.method
    if method in CONTROLS:
        raise MacError(
            f"ablation: saliency.method is the control '{method}'; there is nothing to compare it with"
        )
    _require_made_with(given, "masks", maps, "maps")
    _require_made_with(given, "masks", cores, "masks")
    _require_made_with(given, "features", features, "features")
    masks = given.file("masks")
    rows = masks["row"][:]
    blocks = in_blocks(np.arange(len(rows)), masks["mask"])
    pixels = np.concatenate([masks.rows("mask", each).sum((1, 2)) for each in blocks])
    known = _with_core(given, rows)
    # What is done is kept until all is done. The folder's name depends on all of the inputs.
    params = (maps.model_dump(), cores.model_dump(), features.model_dump())
    depends = (*params, given.digests("images", "erm", "originals", "masks"))
    with Scratch(
        context.scratch, "ablation", __name__, *depends, hardware_of(context.on, context.workers)
    ) as kept:

        def measured(
            folder: str,
            name: str,
            of: NDArray[np.int64],
            method: str | None = None,
            k: NDArray[np.int64] | None = None,
        ) -> Measured:
            """MaC with masks of the rows `of`, in a folder of their own: of another method, or its own."""
            other = _elsewhere(given.project, kept.folder / folder, maps=method is not None)
            if method is None:
                _once(other, "masks", partial(_write_some, given, rows=of))
            else:
                changed = maps.model_copy(update={"method": method})
                _once(other, "maps", lambda out: write_maps(given, out, of, changed, context))
                with other.open("images", "erm", "maps") as looked:
                    core = cores.model_copy(update={"side": "core"})
                    _once(other, "masks", lambda out: write_masks(looked, out, core, 0, context, pixels=k))
            with other.open("images", "erm", "originals", "masks") as masked:
                _once(other, "features", lambda out: write_features(masked, out, features, context))
            with other.open("images", "erm", "masks", "features") as opened:
                return _measure(opened, name, sweep, fit, selection, context)

        own = _measure(given, f"{method} (MaC)", sweep, fit, selection, context)
        random = measured("random", "random masks of the same size", rows, "random", pixels)
        kinds, differences = {"own": own, "random": random}, [_difference(own, random)]
        if len(np.unique(given.file("images")["label"][:][known])) > 1:  # else none has a partner
            same_images = own
            if len(known) < len(rows):
                same_images = measured("own_known", f"{method}, images with a true mask", known)
                kinds["own_known"] = same_images
            true = measured("foreground", "true masks", known, "foreground")
            kinds["true"] = true
            differences.append(_difference(true, same_images))
        settings = OWN
        if not sweep.by_criterion(own.row["criterion"]):
            settings = DEFAULT + (OWN_L2 if fit.l2 == "auto" else "")
        result = {
            "made_from": given.digests("images", "erm", "masks", "features"),
            "pixels": round(pixels.mean()),
            "settings": settings,
            "masks": [each.row for each in kinds.values()],
            "differences": differences,
        }
    return Compared(result, kinds)


def _with_core(given: Opened, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of images.h5, among `rows` (M,), whose true mask is known and no empty core."""
    images = given.file("images")
    known = with_foreground(images, rows)
    empty = empty_cores(images, known, given.model("erm").spec)
    if len(empty):
        counts = len(empty), len(known)
        log.info("ablation: %d of %d true masks have no foreground on the input grid; left out", *counts)
    return np.setdiff1d(known, empty, assume_unique=True)


def _require_made_with(given: Opened, artefact: str, params: Block, read_for: str) -> None:
    """Raise an error if an artefact of the project was made with other parameters.

    The other masks and features are made with `params`. The comparison is only fair if all are made alike.

    Args:
        read_for: the artefact whose stage reads the parameters.
    """
    stated = {params.block: given.file(artefact).provenance.params}
    wanted = {params.block: params.model_dump(mode="json")}
    remedy = f"{given.project.kinds[read_for].remedy} again"
    require_made_with(given.project.path(artefact), stated, wanted, remedy)


def _elsewhere(project: Project, folder: Path, maps: bool) -> Project:
    """The project with other masks, the features of these masks, and perhaps other maps, in a folder."""
    names = ("maps", "masks", "features") if maps else ("masks", "features")
    there = {name: folder / project.kinds[name].path for name in names}
    return Project(project.data, project.kinds, {**project.elsewhere, **there})


def _once(project: Project, name: str, write: Callable[[Path], None]) -> None:
    """Write an artefact of a project, unless it is already there."""
    if not project.path(name).is_file():
        write(project.path(name))


def _write_some(given: Opened, out: Path, rows: NDArray[np.int64]) -> None:
    """Write a masks.h5 with the project's own masks of some rows (M,) of the retraining set."""
    masks = given.file("masks")
    at = np.flatnonzero(np.isin(masks["row"][:], rows))
    made = masks.provenance
    with store.create(out, "masks", SCHEMA, made.params, made.made_from) as some:
        if "rest" in masks:
            some.write("rest", masks["rest"][:])
        for name in [name for name in masks if name != "rest" and not name.startswith("val/")]:
            written = some.create(name, (len(at), *masks[name].shape[1:]))
            for each in in_blocks(np.arange(len(at)), masks[name]):
                written[each[0] : each[-1] + 1] = masks.rows(name, at[each])


@dataclass(frozen=True)
class Measured:
    """The results of one kind of mask.

    Attributes:
        row: its entry in metrics.json.
        heads: S heads.
        worst: (S,) test worst-group accuracy of each.
    """

    row: dict[str, Any]
    heads: FittedHeads
    worst: NDArray[np.float64]


def _measure(
    given: Opened,
    name: str,
    sweep: GridParams,
    fit: FitParams,
    selection: SelectionParams,
    context: Context,
) -> Measured:
    """Fit the grid on the features of one kind of mask, and measure the setting that is picked."""
    features = given.file("features")
    grid = fit_grid(features, given.model("erm").head(), fit, sweep, selection.criterion, context.on)
    place = grid.best if grid.default is None else grid.default
    setting = grid.settings[place]
    log.info("ablation, %s: %s", name, named(setting))
    picked = grid.heads.of_setting(place)
    heads = picked.fitted()
    row = {
        "name": name,
        **{key: getattr(setting, key) for key in names_of(l2=fit.l2 == "auto")},
        "criterion": grid.criterion,
        "seeds": len(grid.seeds),
        "val": head_scores(given, heads, "val"),
        "test": head_scores(given, heads, "test"),
    }
    return Measured(row, heads, scores_of_test_split(features, picked)[0, :, 0])


def _difference(first: Measured, second: Measured) -> dict[str, Any]:
    """How much better the first kind of mask is: an entry of metrics.json."""
    name = f"{first.row['name']} − {second.row['name']}"
    return {"name": name, **paired(first.worst - second.worst)}


def paired(differences: NDArray[np.float64]) -> dict[str, float]:
    """The mean of paired differences (S,), and its 95 % interval by Student's t.

    With one pair there is no interval: `low` and `high` are the mean.
    """
    mean, count = float(differences.mean()), len(differences)
    if count < 2:
        return {"mean": mean, "low": mean, "high": mean}
    half = float(stats.t.ppf(0.975, count - 1)) * float(differences.std(ddof=1)) / math.sqrt(count)
    return {"mean": mean, "low": mean - half, "high": mean + half}
