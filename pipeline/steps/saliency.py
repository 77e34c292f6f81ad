"""Stage saliency: where ERM looks in every image of the retraining set (paper section 3.2).

The validation images get maps in the same way, for the diagnosis.

    image -> map (xGradCAM for the target class)

maps.h5 has what only the network can say; stage masks makes masks of it. `pipeline.method.maps` has the maps;
`pipeline.method.retraining_set` chooses the images. Where the masks are given (the true masks, or the user's
own files), there are no maps.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import store
from pipeline.compute import device
from pipeline.compute.context import Context
from pipeline.compute.engine import Arrays, Block, Scratch
from pipeline.compute.passes import cut, joined, passes
from pipeline.compute.progress import log
from pipeline.errors import MacError
from pipeline.method import controls, maps, pairing
from pipeline.method.kinds import AS_GIVEN, LOOK_AWAY
from pipeline.method.retraining_set import draw_rows, with_foreground
from pipeline.metrics import Grouping
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.network.inputs import to_input_grid
from pipeline.network.loading import image_batches
from pipeline.params.maps import MapParams
from pipeline.params.retraining_set import RetrainingSetParams
from pipeline.params.saliency import SaliencyParams
from pipeline.project import Opened, Reference
from pipeline.results.blanks import blank_in, is_constant
from pipeline.schemas.maps import PARTS, SCHEMA
from pipeline.store.schema import LARGEST

BATCHES = 16  # forward passes in a block


def saliency(
    given: Opened,
    out: Path,
    retraining_set: RetrainingSetParams,
    params: SaliencyParams,
    context: Context,
) -> None:
    """Write maps.h5 of the retraining set and of the validation images.

    Raises:
        MacError: the method needs true masks and there are none; a map is not finite; or too many are
            constant.
    """
    known_only = params.method == "foreground"
    images, validation = given.file("images"), given.rows("val")
    rows = draw_rows(images, given.rows("train"), retraining_set, known_only)
    if known_only:
        validation = with_foreground(images, validation)
    write_maps(given, out, rows, params, context, retraining_set, validation, params.most_constant)


def write_maps(
    given: Opened,
    out: Path,
    rows: NDArray[np.int64],
    params: MapParams,
    context: Context,
    retraining_set: RetrainingSetParams | None = None,
    validation: NDArray[np.int64] | None = None,
    most_constant: float = 1.0,
) -> None:
    """Write maps.h5 for the given rows.

    Args:
        given: images and erm.
        rows: (M,) rows of images.h5.
        retraining_set: how the rows were chosen; it is noted in the file.
        validation: (V,) rows of the validation images that get maps too; None or empty for none of them.
        most_constant: the largest share of constant maps.

    Raises:
        MacError: a map is not finite, or too many are constant.
    """
    reference, shaping = given.reference("images", "erm"), _shaping(params)
    where = context.on.type if context.cluster else str(context.on)
    side = controls.resolution_of(given.model("erm")) if params.method == "random" else None
    parts = {"": _Work(reference, params, rows, side, where)}
    if validation is not None and len(validation):
        parts["val/"] = _Work(reference, params, validation, side, where)
    noted = dict(shaping)
    if retraining_set is not None:
        noted["retraining_set"] = retraining_set.model_dump()
    hardware = device.hardware_of(context.on, context.workers)
    depends = (shaping, reference.digests, hardware, *(part.rows.tolist() for part in parts.values()))
    with (
        Scratch(context.scratch, "saliency", __name__, *depends) as scratch,
        store.create(out, "maps", SCHEMA, noted, reference.digests, scratch=scratch.folder) as artefact,
    ):
        for prefix, part in parts.items():
            _write_part(artefact, prefix, part, scratch, context)
        _judge_blanks(artefact.file, given, params.method, most_constant)


def _shaping(params: MapParams) -> dict[str, object]:
    """The parameters that change maps."""
    return params.model_dump(include=set(MapParams.model_fields))


def _judge_blanks(file: h5py.File, given: Opened, method: str, most: float) -> None:
    """Count the blank maps of maps.h5, and fail if too many in one of its parts rank no pixel."""
    images, said, refused = given.file("images"), [], ""
    label, attribute = images["label"][:], images["attribute"][:]
    for prefix, about in PARTS.items():
        if f"{prefix}cam" not in file:
            continue
        rows, cam = file[f"{prefix}row"][:], file[f"{prefix}cam"]
        described = given.groups.described(label[rows], attribute[rows])
        if (blank := blank_in(cam, method)).any():
            said.append(f"{blank.sum()} of {len(blank)} {about} ({_by_group(described, blank)})")
        if (constant := blank_in(cam, method, is_constant)).mean() > most:
            found = f"{constant.sum()} of {len(constant)} {about} ({_by_group(described, constant)})"
            refused = refused or f"{found}, a larger share than saliency.most_constant, {most:g}"
    if said:
        log.warning("saliency: blank maps, constant or nowhere positive: %s", "; ".join(said))
    if refused:
        raise MacError(
            f"saliency: the map is constant, so that it ranks no pixel, for {refused}; take another "
            "saliency.method or saliency.layer, or, since the network's activations may be dead, another "
            "network or a lower train.lr (saliency.most_constant: 1 goes on)"
        )


def _by_group(described: Grouping, chosen: NDArray[np.bool_]) -> str:
    """How many of each group are chosen, (n,): `landbird_land 3 of 20, …`."""
    counts = np.bincount(described.index[chosen], minlength=len(described.names))
    parts = []
    for name, count, size in zip(described.names, counts, described.count, strict=True):
        parts += [f"{name} {count} of {size}"] if count else []
    return ", ".join(parts)


def _write_part(
    artefact: store.Writer, prefix: str, work: "_Work", scratch: Scratch, context: Context
) -> None:
    """Compute and write the maps of the work's rows, into the datasets with this prefix."""
    count = len(work.rows)
    artefact.write(f"{prefix}row", work.rows)
    columns: dict[str, Any] = {}

    def merge(block: Block, arrays: Arrays) -> None:
        for name, array in arrays.items():
            if block.start == 0:
                columns[name] = artefact.create(f"{prefix}{name}", (count, *array.shape[1:]))
            columns[name][block.slice] = array

    blocks, part = cut(count, BATCHES, context.on), prefix.rstrip("/")
    scratch.map_blocks(work, blocks, merge, part=part, cluster=context.cluster)


@dataclass(frozen=True)
class _Work:
    """The work, as it is sent to another process.

    Attributes:
        reference: images and erm.
        rows: (n,) the retraining set, or the validation images; rows of images.h5.
        resolution: height and width of the maps, if they are noise.
        on: name of the device.
    """

    reference: Reference
    params: MapParams
    rows: NDArray[np.int64]
    resolution: tuple[int, int] | None
    on: str

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        with self.reference.open() as given:
            on = device.pick(self.on)
            yield _Looking(self, given, self._model(given, on), on).maps

    def _model(self, given: Opened, on: torch.device) -> Classifier | None:
        """The network; None if the maps do not look at it."""
        if self.params.method in LOOK_AWAY:
            return None
        erm = given.model("erm")
        model = classifier.load(erm.spec, erm.read(), on)
        if maps.looks_inside(self.params):
            return model
        return classifier.for_inference(model, device.dtype(on, self.params.precision))


@dataclass(frozen=True)
class _Looking:
    """All that a block needs. `maps` is a pure function of the block."""

    work: _Work
    given: Opened
    model: Classifier | None
    on: torch.device

    @torch.no_grad()
    def maps(self, block: Block) -> Arrays:
        """Map (unless the masks are given), target and channel means of a block of rows."""
        images, spec, found = self.given.file("images"), self.given.model("erm").spec, []
        batches = [self.work.rows[each] for each in passes(block, self.on)]
        for rows, stored in zip(batches, image_batches(images, batches, self.on), strict=True):
            grid, label = to_input_grid(stored, spec), images.rows("label", rows)
            mean = pairing.channel_mean(grid).cpu().numpy()
            found.append({"target": label, **self._cam(grid, rows, label), "channel_mean": mean})
        return joined(found)

    def _cam(self, grid: Tensor, rows: NDArray[np.int64], label: NDArray[np.int64]) -> Arrays:
        """The maps, and if they look at the network also the classes that they explain."""
        params = self.work.params
        if self.model is None:
            if params.method in AS_GIVEN:
                return {}
            assert self.work.resolution is not None
            return {"cam": controls.noise(rows, self.work.resolution, params.seed)}
        batch = maps.Batch(self.model.input(grid), torch.from_numpy(label).to(self.on))
        found = maps.of_batch(self.model, batch, params)
        self._require_possible(found.cam, rows)
        return {"cam": found.cam.cpu().numpy(), "target": found.target.cpu().numpy()}

    def _require_possible(self, cam: Tensor, rows: NDArray[np.int64]) -> None:
        bad = (~(cam.abs() <= LARGEST)).flatten(1).any(1).nonzero()
        if len(bad):
            row, model = rows[int(bad[0, 0])], self.given.model("erm").path
            raise MacError(
                f"saliency: the map of row {row} is NaN or above {LARGEST:g}; the model in {model} has "
                "diverged, lower train.lr"
            )
