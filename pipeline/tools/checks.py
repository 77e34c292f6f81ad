"""Checks the machine and the parameters before anything runs (`mac doctor`)."""

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.errors import MacError, first_line
from pipeline.machine import usable_cores

if TYPE_CHECKING:
    import torch

    from pipeline.datasets.record import Dataset
    from pipeline.params.inputs import InputParams
    from pipeline.params.model import ModelParams
    from pipeline.params_file import Params
    from pipeline.tools.estimate import Need

# PyTorch is imported inside functions, so that a broken PyTorch can be reported.

PAINTED = "data/raw/demo"  # DVC runs 'mac demo' if dataset.root is this folder
ROOM = 1.5  # free space should be this many times what the artefacts need


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        state: `ok`, `warning` or `error`.
        what: what was checked.
        found: what was found.
        remedy: what to do; empty if there is nothing to do.
    """

    state: Literal["ok", "warning", "error"]
    what: str
    found: str
    remedy: str = ""


def machine(device: str) -> Iterator[Finding]:
    """Python, PyTorch, HDF5, WebP, the device and DVC.

    Args:
        device: auto, cpu, cuda or cuda:N.
    """
    is_right = sys.version_info >= (3, 11)
    remedy = "" if is_right else "MaC needs 3.11 or later"
    yield Finding("ok" if is_right else "error", "Python", platform.python_version(), remedy)
    yield _checked("torch and torchvision", _torch)
    yield _checked("HDF5", _hdf5)
    yield _webp()
    yield _device(device)
    yield from _dvc()


def _checked(what: str, check: Callable[[], str]) -> Finding:
    """`check` returns what it found, or raises an exception that says what is wrong."""
    try:
        return Finding("ok", what, check())
    except (ImportError, OSError, RuntimeError, PackageNotFoundError) as error:
        return Finding("error", what, first_line(error), "make install")


def _torch() -> str:
    import torch
    import torchvision
    from torchvision.ops import nms

    nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # fails if torchvision was built for another torch
    return f"{torch.__version__} and {torchvision.__version__} work together"


def _hdf5() -> str:
    import h5py

    return f"h5py {h5py.version.version}, HDF5 {h5py.version.hdf5_version}"


def _webp() -> Finding:
    try:
        from pipeline.store import webp

        if found := webp():
            return Finding("ok", "WebP", f"libwebp {found}")
    except ImportError as error:
        return Finding("error", "WebP", first_line(error), "make install")
    remedy = "dataset.storage: encoded, and images of this format, need it; install Pillow's own wheel"
    return Finding("warning", "WebP", "this Pillow was built without it", remedy)


def _device(device: str) -> Finding:
    try:
        import torch

        from pipeline.compute.device import has_bfloat16, pick

        on = pick(device)
    except (MacError, ImportError) as error:
        return Finding("error", "device", first_line(error))
    bfloat16 = "no bfloat16 in hardware: precision auto is float32"
    if has_bfloat16(on):
        bfloat16 = "computes in bfloat16"
    if on.type == "cuda":
        memory = as_bytes(torch.cuda.get_device_properties(on).total_memory)
        return Finding("ok", "device", f"{torch.cuda.get_device_name(on)}, {memory}, {bfloat16}")
    capability = torch.backends.cpu.get_cpu_capability()
    return Finding("ok", "device", f"CPU, {torch.get_num_threads()} threads, {capability}, {bfloat16}")


def _dvc() -> Iterator[Finding]:
    try:
        yield Finding("ok", "DVC", version("dvc"))
    except PackageNotFoundError:
        remedy = "the stages run one by one as 'mac <stage>'; pip install 'mac-robust[dvc]'"
        yield Finding("warning", "DVC", "not installed", remedy)
        return
    yield from _repository(Path.cwd())
    said = subprocess.run([sys.executable, "-m", "dvc", "version"], capture_output=True, text=True).stdout
    yield _cache(said)


def _cache(said: str) -> Finding:
    """How DVC's cache keeps files, by what `dvc version` says."""
    told = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    links = told.get("Cache types")
    if links is None:
        return Finding("warning", "DVC cache", "this folder is in no DVC repository")
    if "no-dvc-cache" in links:  # the address of a page of help
        return Finding("ok", "DVC cache", "nothing is cached yet")
    if any(kind in links for kind in ("reflink", "hardlink", "symlink")):
        return Finding("ok", "DVC cache", f"links by {links}")
    remedy = "put .dvc/cache on the same file system as data (dvc cache dir)"
    return Finding("warning", "DVC cache", "can only copy: every artefact lies on the disk twice", remedy)


def _repository(folder: Path) -> Iterator[Finding]:
    """A remedy if DVC cannot run in a folder, such as an unpacked archive of the source."""
    parents = [folder, *folder.parents]
    repository = next((each for each in parents if (each / ".dvc").is_dir()), None)
    if repository is None:
        remedy = "'git init' and 'dvc init' make one; the stages also run one by one as 'mac <stage>'"
        yield Finding("warning", "DVC repository", "none here, so 'dvc repro' cannot run", remedy)
        return
    config = repository / ".dvc" / "config"
    written = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    if "no_scm = true" not in written.lower() and not any((each / ".git").exists() for each in parents):
        remedy = "'git init', or 'dvc config core.no_scm true'"
        yield Finding("warning", "DVC repository", f"{repository} is in no git repository", remedy)


def project(params_path: Path, data: Path, device: str) -> tuple[list[Finding], "list[Need]"]:
    """Check parameters, weights, dataset, network and disk; estimate what the stages need, if possible.

    Args:
        params_path: params.yaml.
        data: the data folder.
        device: auto, cpu, cuda or cuda:N.
    """
    try:
        from pipeline import params_file
        from pipeline.params.dataset import DatasetParams
        from pipeline.params.inputs import InputParams
        from pipeline.params.model import ModelParams

        params = params_file.load(params_path)
    except (MacError, ImportError) as error:
        return [Finding("error", "parameters", first_line(error))], []
    network, inputs = params.of(ModelParams), params.of(InputParams)
    findings = [Finding("ok", "parameters", str(params_path)), *_weights(network, inputs)]
    dataset = params.of(DatasetParams)
    if Path(dataset.root).as_posix() == PAINTED and not Path(PAINTED).exists():
        found = f"{dataset.root}: not painted yet; 'dvc repro' or 'mac demo' does that"
        return [*findings, Finding("ok", "dataset", found)], []
    try:
        from pipeline.datasets import read
        from pipeline.tools.estimate import decoding_rate

        read_in = read(dataset)
        decoding = usable_cores() * decoding_rate(read_in, dataset)
    except (MacError, ImportError) as error:
        return [*findings, Finding("error", "dataset", first_line(error))], []
    classes, attributes = (", ".join(names) for names in (read_in.groups.classes, read_in.groups.attributes))
    about = f"{dataset.root}: {len(read_in.records)} images, classes {classes}"
    findings.append(Finding("ok", "dataset", f"{about}; spurious attribute {attributes or 'unknown'}"))
    findings += [Finding("warning", "dataset", note) for note in read_in.notes]
    findings += _classifier(network, inputs, read_in.groups.classes)
    findings += _external_masks(params, read_in)
    architecture = params.of(ModelParams).architecture
    try:
        from pipeline.compute.device import pick
        from pipeline.tools.estimate import most_on_disk, needs

        if (on := _picked(pick, device)) is None:
            return findings, []  # `machine` says why
        estimates = needs(params, read_in, decoding, on)
    except (MacError, ImportError, RuntimeError) as error:
        return [*findings, Finding("error", "network", f"{architecture}: {first_line(error)}")], []
    findings.append(Finding("ok", "network", f"{architecture}: computes on {on}"))
    findings.append(_disk(data, most_on_disk(estimates), dataset.storage))
    return findings, estimates


def _external_masks(params: "Params", dataset: "Dataset") -> Iterator[Finding]:
    """Check that the masks of `saliency.method: external` are there."""
    from pipeline.params.dataset import DatasetParams
    from pipeline.params.maps import MapParams
    from pipeline.params.masks import MasksParams
    from pipeline.params.retraining_set import RetrainingSetParams
    from pipeline.steps.external_masks import find

    if params.of(MapParams).method != "external":
        return
    source, every = Path(params.of(MasksParams).external), [record.image.name for record in dataset.records]
    splits, which, unseen = [0, 1], "training and validation", ""
    if params.of(RetrainingSetParams).balance != "none":
        splits, which = [1], "validation"
        unseen = "; stage saliency draws the training images that need one too"
    paths = [record.image.name for record in dataset.records if record.split in splits]
    is_found, skips = False, params.of(DatasetParams).on_error == "skip"
    try:
        find(source, [], [])
        is_found = True
        find(source, paths, every)
    except MacError as error:
        if is_found and skips:
            remedy = "images that stage prepare leaves out (dataset.on_error: skip) need none"
            yield Finding("warning", "masks", first_line(error), remedy)
        else:
            yield Finding("error", "masks", first_line(error))
    else:
        yield Finding("ok", "masks", f"{source}: the {len(paths)} {which} images have one{unseen}")


def _picked(pick: "Callable[[str], torch.device]", device: str) -> "torch.device | None":
    try:
        return pick(device)
    except MacError:
        return None


def _weights(params: "ModelParams", inputs: "InputParams") -> Iterator[Finding]:
    """Check that a file fits the architecture, or that named weights exist. Nothing is downloaded."""
    if params.weights == "none" or params.classifier is not None:
        return
    try:
        from pipeline.network import classifier
        from pipeline.network.weights import weights_file

        if weights_file(params.weights):
            classifier.build(params.architecture, 1, params.weights, input_size=inputs.input_size)
        else:
            classifier.check_published(params.architecture, params.weights)
    except (MacError, ImportError, RuntimeError) as error:
        yield Finding("error", "weights", first_line(error))
    else:
        yield Finding("ok", "weights", params.weights)


def _classifier(params: "ModelParams", inputs: "InputParams", classes: Sequence[str]) -> Iterator[Finding]:
    """Check that a trained classifier fits the architecture and the dataset's classes."""
    if params.classifier is None:
        return
    try:
        from pipeline.network import classifier

        file, size = Path(params.classifier), inputs.input_size
        classifier.from_file(params.architecture, file, classes, params.classes, input_size=size)
    except (MacError, ImportError, RuntimeError) as error:
        yield Finding("error", "classifier", first_line(error))
    else:
        yield Finding("ok", "classifier", f"{params.classifier}: fits, and is not trained")


def _disk(data: Path, needed: float, storage: str) -> Finding:
    folder = data if data.is_dir() else Path()
    free = shutil.disk_usage(folder).free
    found = f"{as_bytes(free)} free in {folder}, the stages need about {as_bytes(needed)}"
    if free > ROOM * needed:
        return Finding("ok", "disk", found)
    remedy = "free some, or lower dataset.stored_size or features.draws"
    if storage == "pixels":  # encoded images take less, also while prepare has them twice
        remedy += ", or set dataset.storage to encoded"
    return Finding("error" if free < needed else "warning", "disk", found, remedy)


def as_bytes(count: float) -> str:
    """A number of bytes as text, in a suitable unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def as_time(seconds: float) -> str:
    """A time as text, in a suitable unit."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
