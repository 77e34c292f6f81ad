"""Stage masks: the core of every image of maps.h5 (paper section 3.2).

    map -> upsampled to the input grid -> mask: the K highest pixels

No network is needed for it, but where K or the side are to be what ERM recognises an image by:
`pipeline.method.knee` can choose K for each image. Or the masks are given: the true masks, or the user's own
files (`pipeline.steps.external_masks`). Then the network says how high and wide its maps are.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
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
from pipeline.compute.engine import Arrays, Block, Into, Scratch
from pipeline.compute.passes import cut, joined, passes
from pipeline.compute.progress import log
from pipeline.errors import MacError
from pipeline.method import controls, interventions
from pipeline.method.kinds import AS_GIVEN
from pipeline.method.knee import FALLBACK, at_knee, mean_colour
from pipeline.method.masks import highest, upsample
from pipeline.method.pixels import core_pixels
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.network.inputs import InputSpec, to_input_grid
from pipeline.network.loading import image_batches
from pipeline.params.cores import CoreParams
from pipeline.params.masks import MasksParams
from pipeline.project import Opened, Reference
from pipeline.results.blocks import in_blocks
from pipeline.results.intervals import wilson
from pipeline.results.previews import write_previews
from pipeline.schemas.maps import PARTS
from pipeline.schemas.masks import SCHEMA
from pipeline.steps.external_masks import ExternalMasks, find
from pipeline.store import Artefact

COPIED = ("row", "target", "channel_mean")  # from maps.h5, besides the maps
KNEES = ("quantile", "has_knee")
BATCHES = 16  # forward passes in a block


def masks(given: Opened, out: Path, params: MasksParams, context: Context) -> None:
    """Write masks.h5 of the images of maps.h5.

    Args:
        given: images, erm and maps.

    Raises:
        MacError: `top_k` leaves no core, or is larger than the input grid; an external mask is missing or
            cannot be read; or a given mask has no foreground.
    """
    external = None
    if given.stated("maps", "method") == "external":
        images, found = given.file("images"), given.file("maps")
        source, paths = Path(params.external), _paths(images, np.arange(len(images["path"])))
        rows = np.concatenate([found[f"{part}row"][:] for part in PARTS if f"{part}row" in found])
        wanted = [paths[row] for row in rows]
        # Workers have other working directories.
        external = find(source.resolve() if context.cluster else source, wanted, paths)
    write_masks(given, out, params, params.previews, context, external=external)


def _paths(images: Artefact, rows: NDArray[np.int64]) -> list[str]:
    """The paths of rows of images.h5."""
    return [path.decode() for path in images.rows("path", rows)]


def write_masks(
    given: Opened,
    out: Path,
    params: CoreParams,
    previews: int,
    context: Context,
    pixels: NDArray[np.int64] | None = None,
    external: ExternalMasks | None = None,
) -> None:
    """Write masks.h5 of the images of maps.h5.

    Args:
        given: images, erm and maps.
        previews: how many pictures to write.
        pixels: (M,) K of each image of the retraining set; None for what `params` says.
        external: the masks of all images of maps.h5, if the method of the maps is `external`.

    Raises:
        MacError: `top_k` or a given mask leaves no core, `top_k` is larger than the input grid, or an
            external mask cannot be read.
    """
    images, erm, looked = given.file("images"), given.model("erm"), given.file("maps")
    spec, is_given = erm.spec, given.stated("maps", "method") in AS_GIVEN
    rows = {prefix: looked[f"{prefix}row"][:] for prefix in PARTS if f"{prefix}row" in looked}
    k = None if is_given or pixels is not None else core_pixels(params, spec.input_size)
    if is_given and external is None:
        _require_cores(images, np.concatenate(list(rows.values())), spec)
    side = controls.resolution_of(erm) if is_given else None
    reference = given.reference("images", "erm", "maps")
    where = context.on.type if context.cluster else str(context.on)

    def work(prefix: str, rest: NDArray[np.bool_] | None) -> _Work:
        of = rows[prefix]
        pixels = None if k is None else np.full(len(of), k)
        return _Work(reference, params, prefix, of, pixels, rest, side, external, where)

    rest = np.full(len(spec.classes), params.side == "rest" and not is_given)
    if params.side == "auto" and not is_given and "val/" in rows:
        rest = _rest(given, work("val/", None), context)
    parts = {prefix: work(prefix, rest) for prefix in rows}
    if pixels is not None:
        parts[""] = replace(parts[""], pixels=pixels)
    noted = {**looked.provenance.params, **_shaping(params), "previews": previews}
    made_from = dict(reference.digests)
    if external is not None:
        made_from["external"] = external.digest
    with (
        _scratch("masks", list(parts.values()), context) as scratch,
        store.create(out, "masks", SCHEMA, noted, made_from, scratch=scratch.folder) as artefact,
    ):
        if params.side == "auto":
            artefact.write("rest", rest)
        told: Counter[str] = Counter()
        for part in parts.values():
            told += _write_part(artefact, looked, part, spec.input_size, scratch, context)
        for text, count in sorted(told.items()):
            log.warning("%d masks: %s", count, text)
        if external is not None:
            _require_foreground(artefact.file, images, external)
        _say_where_no_knee_is(artefact.file)
        write_previews(artefact.file, images, spec, previews)


def _require_cores(images: Artefact, rows: NDArray[np.int64], spec: InputSpec) -> None:
    """Raise an error if the true mask of one of the rows has no foreground on the input grid."""
    empty = empty_cores(images, rows, spec)
    if len(empty):
        first = _paths(images, empty[:1])[0]
        raise MacError(
            f"{images.path}: with saliency.method foreground, {len(empty)} of {len(rows)} cores are empty, "
            f"such as that of {first}; correct these true masks, or take them out of the dataset's table"
        )


def empty_cores(images: Artefact, rows: NDArray[np.int64], spec: InputSpec) -> NDArray[np.int64]:
    """The rows of images.h5, among `rows` (M,), whose true mask has no foreground on the input grid."""
    if not len(rows):  # there may be no true masks at all
        return rows
    empty = []
    for block in in_blocks(rows, images["foreground"]):
        grid = to_input_grid(torch.from_numpy(images.rows("foreground", block)), spec)
        empty.append(block[~grid.flatten(1).any(1).numpy()])
    return np.concatenate(empty)


def _require_foreground(file: h5py.File, images: Artefact, external: ExternalMasks) -> None:
    """Raise an error if one of the masks of masks.h5 has no foreground."""
    empty: list[str] = []
    total = 0
    for prefix in PARTS:
        if f"{prefix}mask" not in file:
            continue
        rows, mask = file[f"{prefix}row"][:], file[f"{prefix}mask"]
        total += len(rows)
        for each in in_blocks(np.arange(len(rows)), mask):
            none = ~mask[each[0] : each[-1] + 1].any((1, 2))
            empty += _paths(images, rows[each][none])
    if empty:
        raise MacError(
            f"{external.folder / external.files[empty[0]]}: with saliency.method external, {len(empty)} of "
            f"{total} masks have no foreground on the input grid, such as this one of {empty[0]}; correct "
            "them, or take their images out of the dataset"
        )


def _say_where_no_knee_is(file: h5py.File) -> None:
    """Count the images of masks.h5 that have no knee, if they should have one."""
    said = []
    for prefix, about in PARTS.items():
        if f"{prefix}has_knee" in file:
            found = file[f"{prefix}has_knee"][:]
            said.append(f"{(~found).sum()} of {len(found)} {about}")
    if said:
        log.info("saliency.size knee: no knee for %s; their q is %g", " and ".join(said), FALLBACK)


def _shaping(params: CoreParams) -> dict[str, object]:
    """The parameters that change masks, besides those of the maps."""
    return params.model_dump(include=set(CoreParams.model_fields))


def _scratch(name: str, parts: "Sequence[_Work]", context: Context) -> Scratch:
    depends: list[object] = [device.hardware_of(context.on, context.workers)]
    for work in parts:
        pixels = None if work.pixels is None else work.pixels.tolist()
        external = work.external and work.external.digest
        depends += [_shaping(work.params), work.reference.digests, pixels, external]
    return Scratch(context.scratch, name, __name__, *depends)


def _rest(given: Opened, work: "_Work", context: Context) -> NDArray[np.bool_]:
    """For each class whether its core is the rest of the map, (classes,): `saliency.side: auto`.

    Of the images whose map explains the class, ERM is shown the K highest pixels alone, and the rest alone.
    The rest is the core if ERM is right about more of them by the rest, beyond the 95 % interval of the K
    highest pixels. Of a class without such images, the core is the K highest pixels. DaC has one side for a
    dataset, chosen by hand.

    Args:
        work: on the validation images; `rest` is None.
    """
    parts: list[Arrays] = []
    with _scratch("masks-sides", [work], context) as scratch:
        blocks = cut(len(work.rows), BATCHES, context.on)
        scratch.map_blocks(work, blocks, lambda _, arrays: parts.append(arrays), cluster=context.cluster)
        seen = joined(parts)
    classes = given.model("erm").spec.classes
    found, said = np.zeros(len(classes), np.bool_), []
    for code, name in enumerate(classes):
        members = seen["target"] == code
        count = int(members.sum())
        if not count:
            said.append(f"{name} core (no images)")
            continue
        core, rest = (float(seen[view][members].mean()) for view in ("core", "rest"))
        found[code] = rest > wilson(core, count)[1]
        side = "rest" if found[code] else "core"
        said.append(f"{name} {side} (right by the core {core:.3f}, by the rest {rest:.3f}, of {count})")
    log.info("saliency.side auto: %s", "; ".join(said))
    return found


def _write_part(
    artefact: store.Writer, looked: Artefact, work: "_Work", size: int, scratch: Scratch, context: Context
) -> Counter[str]:
    """Compute and write the masks of the work's part of maps.h5.

    Returns:
        What to tell about how mask files were read, and for how many of them.
    """
    count, prefix = len(work.rows), work.prefix
    for name in COPIED:
        artefact.write(f"{prefix}{name}", looked[f"{prefix}{name}"][:])
    shape = looked[f"{prefix}cam"].shape[1:] if work.side is None else work.side
    cam = artefact.create(f"{prefix}cam", (count, *shape))
    into: Into = {"mask": artefact.chunks(f"{prefix}mask", (count, size, size))}
    knees: dict[str, NDArray[Any]] = {}
    told: Counter[str] = Counter()

    def merge(block: Block, arrays: Arrays) -> None:
        cam[block.slice] = looked[f"{prefix}cam"][block.slice] if work.side is None else arrays["cam"]
        for name in KNEES:
            if name in arrays:
                knees.setdefault(name, np.empty(count, arrays[name].dtype))[block.slice] = arrays[name]
        told.update(arrays["told"].tobytes().decode().splitlines())

    blocks, part = cut(count, BATCHES, context.on), prefix.rstrip("/")
    scratch.map_blocks(work, blocks, merge, into, part, cluster=context.cluster)
    for name, column in knees.items():
        artefact.write(f"{prefix}{name}", column)
    return told


@dataclass(frozen=True)
class _Work:
    """The work, as it is sent to another process.

    Attributes:
        reference: images, erm and maps.
        prefix: of the datasets of maps.h5: "" for the retraining set, "val/" for the validation images.
        rows: (n,) their rows of images.h5.
        pixels: (n,) K of each; None if it is at the knee, or the masks are given.
        rest: (classes,) whether the core is the rest of the map; None if this is to be found out.
        side: height and width of maps, if the masks are given; else None.
        external: the masks of the rows, if they are the user's files.
        on: name of the device.
    """

    reference: Reference
    params: CoreParams
    prefix: str
    rows: NDArray[np.int64]
    pixels: NDArray[np.int64] | None
    rest: NDArray[np.bool_] | None
    side: tuple[int, int] | None
    external: ExternalMasks | None
    on: str

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        with self.reference.open() as given:
            on = device.pick(self.on)
            masking = _Masking(self, given, self._model(given, on), on)
            yield masking.views if self.rest is None else partial(masking.masks, self.rest)

    def _model(self, given: Opened, on: torch.device) -> Classifier | None:
        """ERM, where it says how many pixels or which side; else None."""
        if self.rest is not None and (self.pixels is not None or self.side is not None):
            return None
        erm, precision = given.model("erm"), given.stated("maps", "precision")
        model = classifier.load(erm.spec, erm.read(), on)
        return classifier.for_inference(model, device.dtype(on, precision))


@dataclass(frozen=True)
class _Looked:
    """A batch, and where ERM looks in it.

    Attributes:
        positions: (B,) in the part.
        target: (B,) int64, the class that each map explains.
        top: (B, S, S) bool, the highest pixels of the maps; or the given masks.
        grid: (B, 3, S, S) uint8; None if it is not needed.
        found: what else is kept of it: of `at_knee`, `quantile` and `has_knee`, (B,); of given masks, `cam`.
        told: what to tell about how the masks' files were read.
    """

    positions: NDArray[np.int64]
    target: Tensor
    top: Tensor
    grid: Tensor | None
    found: Arrays
    told: list[str]


@dataclass(frozen=True)
class _Masking:
    """All that a block needs. `masks` and `views` are pure functions of the block."""

    work: _Work
    given: Opened
    model: Classifier | None
    on: torch.device

    def masks(self, rest: NDArray[np.bool_], block: Block) -> Arrays:
        """The masks of a block of positions, and what else is kept.

        Args:
            rest: (classes,) whether the core is the rest of the map.
        """
        turned, found = torch.from_numpy(rest).to(self.on), []
        for batch in self._batches(block):
            mask = batch.top ^ turned[batch.target][:, None, None]
            told = "".join(f"{each}\n" for each in batch.told).encode()
            found.append({"mask": mask.cpu().numpy(), "told": np.frombuffer(told, np.uint8), **batch.found})
        return joined(found)

    @torch.no_grad()
    def views(self, block: Block) -> Arrays:
        """Whether ERM is right about the highest pixels alone, `core`, and all others, `rest`; (n,) bool.

        The other pixels are filled with the image's own mean colour. `target` is as in maps.h5.
        """
        found = []
        for batch in self._batches(block):
            assert self.model is not None
            assert batch.grid is not None
            rows = self.work.rows[batch.positions]
            label = torch.from_numpy(self.given.file("images").rows("label", rows)).to(self.on)
            x, fill = self.model.input(batch.grid), mean_colour(self.model, batch.grid)
            mask = batch.top[:, None].to(x.dtype)
            right = {"target": batch.target.cpu().numpy()}
            for name, view in (("core", interventions.masked), ("rest", interventions.rest)):
                right[name] = (self.model(view(x, mask, fill)).argmax(1) == label).cpu().numpy()
            found.append(right)
        return joined(found)

    @torch.no_grad()
    def _batches(self, block: Block) -> Iterator[_Looked]:
        spec, looked, work = self.given.model("erm").spec, self.given.file("maps"), self.work
        batches = passes(block, self.on)
        grids = repeat(None, len(batches)) if self.model is None else self._grids(batches)
        for positions, grid in zip(batches, grids, strict=True):
            target = torch.from_numpy(looked.rows(f"{work.prefix}target", positions)).to(self.on)
            found: Arrays = {}
            told = list[str]()
            if work.side is not None:
                top, told = self._given_masks(work.rows[positions])
                found = {"cam": controls.shares(top, work.side).cpu().numpy()}
            else:
                cam = torch.from_numpy(looked.rows(f"{work.prefix}cam", positions)).to(self.on)
                if work.pixels is not None:
                    top = highest(upsample(cam, spec.input_size), work.pixels[positions])
                else:
                    assert self.model is not None
                    assert grid is not None
                    at = at_knee(self.model, grid, cam, target)
                    top, found = at.mask, {"quantile": at.quantile, "has_knee": at.found}
            yield _Looked(positions, target, top, grid, found, told)

    def _grids(self, batches: list[NDArray[np.int64]]) -> Iterator[Tensor]:
        """The input grids of batches of positions."""
        images, rows = self.given.file("images"), [self.work.rows[each] for each in batches]
        for stored in image_batches(images, rows, self.on):
            yield to_input_grid(stored, self.given.model("erm").spec)

    def _given_masks(self, rows: NDArray[np.int64]) -> tuple[Tensor, list[str]]:
        """(B, S, S) bool, the masks that are taken as they are; and what to tell about them."""
        images, told = self.given.file("images"), list[str]()
        if self.work.external is None:
            stored = images.rows("foreground", rows)
        else:
            stored = np.empty((len(rows), *images["image"].shape[1:3]), np.bool_)
            how = self.given.stated("images", "to_stored")
            for number, path in enumerate(_paths(images, rows)):
                stored[number], said = self.work.external.stored(path, stored.shape[1], how)
                told += said
        return to_input_grid(torch.from_numpy(stored).to(self.on), self.given.model("erm").spec), told
