"""Stage saliency: finds the core of every image of the retraining set (paper section 3.2).

The validation images get masks in the same way, for the diagnosis.

    image -> map (xGradCAM for the target class) -> upsampled to the input grid -> mask: the K highest pixels

Or the masks are given: the true masks, or the user's own files (`pipeline.steps.external_masks`).
`pipeline.method.maps` has the maps; `pipeline.method.knee` can choose K for each image;
`pipeline.method.retraining_set` chooses the images.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
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
from pipeline.compute.engine import Arrays, Block, Into, Shards, blocks
from pipeline.compute.progress import log
from pipeline.errors import MacError
from pipeline.method import interventions, maps, pairing
from pipeline.method.kinds import AS_GIVEN
from pipeline.method.knee import FALLBACK, at_knee, mean_colour
from pipeline.method.masks import highest, pixel_count, upsample
from pipeline.method.retraining_set import draw_rows, with_foreground
from pipeline.metrics import Grouping
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.network.inputs import InputSpec, to_input_grid
from pipeline.network.loading import image_batches
from pipeline.params.maps import MapParams
from pipeline.params.retraining_set import RetrainingSetParams
from pipeline.params.saliency import SaliencyParams
from pipeline.project import Opened, Reference
from pipeline.results.blanks import blank_in, is_constant
from pipeline.results.blocks import in_blocks
from pipeline.results.intervals import wilson
from pipeline.results.previews import write_previews
from pipeline.schemas.masks import SCHEMA
from pipeline.steps.external_masks import ExternalMasks, find
from pipeline.store import Artefact
from pipeline.store.schema import LARGEST

COLUMNS = ("target", "channel_mean", "quantile", "has_knee")  # of masks.h5, besides the row
PARTS = {"": "images of the retraining set", "val/": "validation images"}  # of masks.h5, by prefix
BATCHES = 16  # in a block; a block has whole batches, so that the same images always share a batch


def saliency(
    given: Opened,
    out: Path,
    retraining_set: RetrainingSetParams,
    params: SaliencyParams,
    context: Context,
) -> None:
    """Write masks.h5 of the retraining set and of the validation images.

    Raises:
        MacError: `top_k` leaves no core, or is larger than the input grid; the method needs true masks and
            there are none; an external mask is missing or cannot be read; a given mask has no foreground; a
            map is not finite; or too many are constant.
    """
    known_only = params.method == "foreground"
    images, validation = given.file("images"), given.rows("val")
    rows = draw_rows(images, given.rows("train"), retraining_set, known_only)
    if known_only:
        validation = with_foreground(images, validation)
    external = None
    if params.method == "external":
        source, paths = Path(params.external), _paths(images, np.arange(len(images["path"])))
        both = [paths[row] for row in (*rows, *validation)]
        # Workers have other working directories.
        external = find(source.resolve() if context.cluster else source, both, paths)
    write_masks(
        *(given, out, rows, params, params.previews, context, retraining_set, validation),
        external=external,
        most_constant=params.most_constant,
    )


def _paths(images: Artefact, rows: NDArray[np.int64]) -> list[str]:
    """The paths of rows of images.h5."""
    return [path.decode() for path in images.rows("path", rows)]


def write_masks(
    given: Opened,
    out: Path,
    rows: NDArray[np.int64],
    params: MapParams,
    previews: int,
    context: Context,
    retraining_set: RetrainingSetParams | None = None,
    validation: NDArray[np.int64] | None = None,
    pixels: NDArray[np.int64] | None = None,
    external: ExternalMasks | None = None,
    most_constant: float = 1.0,
) -> None:
    """Write masks.h5 for the given rows.

    Args:
        given: images and erm.
        rows: (M,) rows of images.h5.
        previews: how many pictures to write.
        retraining_set: how the rows were chosen; it is noted in the file.
        validation: (V,) rows of the validation images that get masks too; None or empty for none of them.
        pixels: (M,) K of each row; None for what `params` says.
        external: the masks of all these rows, if the method is `external`.
        most_constant: the largest share of constant maps.

    Raises:
        MacError: `top_k` or a given mask leaves no core, `top_k` is larger than the input grid, an external
            mask cannot be read, a map is not finite, or too many are constant.
    """
    images, spec, reference = given.file("images"), given.model("erm").spec, given.reference("images", "erm")
    k = None if params.method in AS_GIVEN or pixels is not None else _k(params, spec.input_size)
    if params.method == "foreground":
        _require_cores(images, rows if validation is None else np.concatenate([rows, validation]), spec)
    where = context.on.type if context.cluster else str(context.on)

    def work(rows: NDArray[np.int64], rest: NDArray[np.bool_] | None) -> _Work:
        pixels = None if k is None else np.full(len(rows), k)
        return _Work(reference, params, rows, pixels, rest, external, where)

    rest = np.full(len(spec.classes), params.side == "rest")
    if params.method in AS_GIVEN:
        rest[:] = False
    elif params.side == "auto":
        rest = _rest(given, work(given.rows("val"), None), context)
    own = work(rows, rest)
    parts = {"": own if pixels is None else replace(own, pixels=pixels)}
    if validation is not None and len(validation):
        parts["val/"] = work(validation, rest)
    noted = {**_shaping(params), "previews": previews}
    if retraining_set is not None:
        noted["retraining_set"] = retraining_set.model_dump()
    made_from = given.digests("images", "erm")
    if external is not None:
        made_from["external"] = external.digest
    with (
        _shards("saliency", list(parts.values()), context) as shards,
        store.create(out, "masks", SCHEMA, noted, made_from, scratch=shards.folder) as artefact,
    ):
        if params.side == "auto":
            artefact.write("rest", rest)
        told: Counter[str] = Counter()
        for prefix, part in parts.items():
            told += _write_part(artefact, prefix, part, spec.input_size, shards, context)
        for text, count in sorted(told.items()):
            log.warning("%d masks: %s", count, text)
        if external is not None:
            _require_foreground(artefact.file, images, external)
        _judge_blanks(artefact.file, given, params.method, most_constant)
        _say_where_no_knee_is(artefact.file)
        write_previews(artefact.file, images, spec, previews)


def _require_cores(images: Artefact, rows: NDArray[np.int64], spec: InputSpec) -> None:
    """Raise an error if the true mask of one of the rows has no foreground on the input grid."""
    empty = empty_cores(images, rows, spec)
    if len(empty):
        first = images["path"][empty[0]].decode()
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


def _judge_blanks(file: h5py.File, given: Opened, method: str, most: float) -> None:
    """Count the blank maps of masks.h5, and fail if too many in one of its parts rank no pixel."""
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


def _say_where_no_knee_is(file: h5py.File) -> None:
    """Count the images of masks.h5 that have no knee, if they should have one."""
    said = []
    for prefix, about in PARTS.items():
        if f"{prefix}has_knee" in file:
            found = file[f"{prefix}has_knee"][:]
            said.append(f"{(~found).sum()} of {len(found)} {about}")
    if said:
        log.info("saliency.size knee: no knee for %s; their q is %g", " and ".join(said), FALLBACK)


def _k(params: MapParams, size: int) -> int | None:
    """K in pixels, of which a core is left; None if each image has its own."""
    if params.size == "knee":
        return None
    try:
        k = pixel_count(params.top_k, size)
    except MacError as error:
        raise MacError(f"saliency.{error}") from None
    if k == size**2 and params.side != "core":
        side = params.side
        raise MacError(f"saliency.top_k: with saliency.side '{side}', {k} of {size}² pixels leave no core")
    return k


def _shaping(params: MapParams) -> dict[str, object]:
    """The parameters that change maps and masks."""
    return params.model_dump(include=set(MapParams.model_fields))


def _shards(name: str, parts: "Sequence[_Work]", context: Context) -> Shards:
    depends = []
    for work in parts:
        pixels = None if work.pixels is None else work.pixels.tolist()
        external = work.external and work.external.digest
        depends += [_shaping(work.params), work.reference.digests, work.rows.tolist(), pixels, external]
    hardware = device.hardware_of(context.on, context.workers)
    return Shards(context.scratch, name, __name__, hardware, *depends)


def _cut(work: "_Work", on: torch.device) -> list[Block]:
    return blocks(len(work.rows), BATCHES * device.forward_batch(on))


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
    with _shards("saliency-sides", [work], context) as shards:
        cut = _cut(work, context.on)
        shards.map_blocks(work, cut, lambda _, arrays: parts.append(arrays), cluster=context.cluster)
        seen = _joined(parts)
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
    artefact: store.Writer, prefix: str, work: "_Work", size: int, shards: Shards, context: Context
) -> Counter[str]:
    """Compute and write the masks of the work's rows, into the datasets with this prefix.

    Returns:
        What to tell about how mask files were read, and for how many of them.
    """
    count = len(work.rows)
    artefact.write(f"{prefix}row", work.rows)
    into: Into = {"mask": artefact.chunks(f"{prefix}mask", (count, size, size))}
    columns: dict[str, NDArray[Any]] = {}
    told: Counter[str] = Counter()

    def merge(block: Block, arrays: Arrays) -> None:
        if block.start == 0:
            artefact.create(f"{prefix}cam", (count, *arrays["cam"].shape[1:]))
            for name in COLUMNS:
                if name in arrays:
                    columns[name] = np.empty((count, *arrays[name].shape[1:]), arrays[name].dtype)
        artefact.file[f"{prefix}cam"][block.slice] = arrays["cam"]
        for name, column in columns.items():
            column[block.slice] = arrays[name]
        told.update(arrays["told"].tobytes().decode().splitlines())

    cut, part = _cut(work, context.on), prefix.rstrip("/")
    shards.map_blocks(work, cut, merge, into, part, cluster=context.cluster)
    for name, column in columns.items():
        artefact.write(f"{prefix}{name}", column)
    return told


@dataclass(frozen=True)
class _Work:
    """The work, as it is sent to another process.

    Attributes:
        reference: images and erm.
        rows: (n,) the retraining set, or the validation images; rows of images.h5.
        pixels: (n,) K of each row; None if it is at the knee.
        rest: (classes,) whether the core is the rest of the map; None if this is to be found out.
        external: the masks of the rows, if the method is `external`.
        on: name of the device.
    """

    reference: Reference
    params: MapParams
    rows: NDArray[np.int64]
    pixels: NDArray[np.int64] | None
    rest: NDArray[np.bool_] | None
    external: ExternalMasks | None
    on: str

    @contextmanager
    def open(self) -> Iterator[Callable[[Block], Arrays]]:
        with self.reference.open() as given:
            erm, on = given.model("erm"), device.pick(self.on)
            model = classifier.load(erm.spec, erm.read(), on)
            if not maps.looks_inside(self.params):
                model = classifier.for_inference(model, device.dtype(on, self.params.precision))
            masking = _Masking(self, given, model, on)
            yield masking.views if self.rest is None else partial(masking.masks, self.rest)


@dataclass(frozen=True)
class _Looked:
    """A batch, and where ERM looks in it.

    Attributes:
        grid: (B, 3, S, S) uint8.
        label: (B,) int64.
        maps: the raw maps, and the classes that they explain.
        top: (B, S, S) bool, the highest pixels of the maps; or the given masks.
        knees: `quantile` and `has_knee`, (B,), of `at_knee`; empty if it is not asked.
        told: what to tell about how the masks' files were read.
    """

    grid: Tensor
    label: Tensor
    maps: maps.Maps
    top: Tensor
    knees: Arrays
    told: list[str]


@dataclass(frozen=True)
class _Masking:
    """All that a block needs. `masks` and `views` are pure functions of the block."""

    work: _Work
    given: Opened
    model: Classifier
    on: torch.device

    def masks(self, rest: NDArray[np.bool_], block: Block) -> Arrays:
        """Map, mask, target and channel means of a block of rows.

        Args:
            rest: (classes,) whether the core is the rest of the map.
        """
        turned, found = torch.from_numpy(rest).to(self.on), []
        for batch in self._batches(block):
            mask = batch.top ^ turned[batch.maps.target][:, None, None]
            found.append(
                {
                    "cam": batch.maps.cam.cpu().numpy(),
                    "mask": mask.cpu().numpy(),
                    "target": batch.maps.target.cpu().numpy(),
                    "channel_mean": pairing.channel_mean(batch.grid).cpu().numpy(),
                    "told": np.frombuffer("".join(f"{each}\n" for each in batch.told).encode(), np.uint8),
                    **batch.knees,
                }
            )
        return _joined(found)

    @torch.no_grad()
    def views(self, block: Block) -> Arrays:
        """Whether ERM is right about the highest pixels alone, `core`, and all others, `rest`; (n,) bool.

        The other pixels are filled with the image's own mean colour. `target` is as in `masks`.
        """
        found = []
        for batch in self._batches(block):
            x, fill = self.model.input(batch.grid), mean_colour(self.model, batch.grid)
            mask = batch.top[:, None].to(x.dtype)
            right = {"target": batch.maps.target.cpu().numpy()}
            for name, view in (("core", interventions.masked), ("rest", interventions.rest)):
                right[name] = (self.model(view(x, mask, fill)).argmax(1) == batch.label).cpu().numpy()
            found.append(right)
        return _joined(found)

    @torch.no_grad()
    def _batches(self, block: Block) -> Iterator[_Looked]:
        images, spec = self.given.file("images"), self.given.model("erm").spec
        size, params = device.forward_batch(self.on), self.work.params
        cut = [slice(start, min(start + size, block.stop)) for start in range(block.start, block.stop, size)]
        batches = [self.work.rows[each] for each in cut]
        for each, rows, stored in zip(cut, batches, image_batches(images, batches, self.on), strict=True):
            grid = to_input_grid(stored, spec)
            label = torch.from_numpy(images.rows("label", rows)).to(self.on)
            foreground, told = self._given_masks(rows)
            batch = maps.Batch(rows, self.model.input(grid), label, foreground)
            found = maps.of_batch(self.model, batch, params)
            self._require_possible(found.cam, rows)
            knees: Arrays = {}
            if foreground is not None:
                top = foreground
            elif self.work.pixels is not None:
                top = highest(upsample(found.cam, spec.input_size), self.work.pixels[each])
            else:
                at = at_knee(self.model, grid, found.cam, found.target)
                top, knees = at.mask, {"quantile": at.quantile, "has_knee": at.found}
            yield _Looked(grid, label, found, top, knees, told)

    def _given_masks(self, rows: NDArray[np.int64]) -> tuple[Tensor | None, list[str]]:
        """(B, S, S) bool, the masks that are taken as they are, or None; and what to tell about them."""
        if self.work.params.method not in AS_GIVEN:
            return None, []
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

    def _require_possible(self, cam: Tensor, rows: NDArray[np.int64]) -> None:
        bad = (~(cam.abs() <= LARGEST)).flatten(1).any(1).nonzero()
        if len(bad):
            row, model = rows[int(bad[0, 0])], self.given.model("erm").path
            raise MacError(
                f"saliency: the map of row {row} is NaN or above {LARGEST:g}; the model in {model} has "
                "diverged, lower train.lr"
            )


def _joined(found: Sequence[Arrays]) -> Arrays:
    """Arrays of several batches or blocks, in one."""
    joined = {}
    for name in found[0]:
        joined[name] = np.concatenate([arrays[name] for arrays in found])
    return joined
