"""mac doctor: whether this machine and these parameters will do, before anything runs."""

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import click

from pipeline.compute.machine import usable_cores
from pipeline.errors import MacError, first_line
from stages.common import Layout, data_option, device_option, params_option

PAINTED = "data/raw/demo"  # DVC runs mac demo where dataset.root is this


@dataclass(frozen=True)
class Finding:
    """What a check found; `remedy` where something is to be done."""

    state: Literal["ok", "warning", "error"]
    what: str
    found: str
    remedy: str = ""


@click.command("doctor")
@params_option
@data_option
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(params_path: Path, data: Path, device: str, as_json: bool) -> None:
    """Check Python, PyTorch, device, HDF5, DVC, disk, dataset and weights, and estimate what every stage will need."""
    findings = [*_packages(), _device(device), *_dvc()]
    needed: list[dict[str, Any]] = []
    try:
        needed, more = _project(params_path, Layout(data), device)
        findings += more
    except MacError as error:
        findings.append(Finding("error", "project", str(error)))
    if as_json:
        click.echo(json.dumps({"findings": [asdict(each) for each in findings], "stages": needed}, ensure_ascii=False))
    else:
        for each in findings:
            click.echo(f"{each.state:<8} {each.what}: {each.found}" + (f"; {each.remedy}" if each.remedy else ""))
        if needed:
            click.echo(f"\n{'stage':<10}{'on disk':>12}{'time':>12}   (estimates)")
            for row in needed:
                click.echo(f"{row['stage']:<10}{_bytes(row['bytes']):>12}{_time(row['seconds']):>12}")
    if any(each.state == "error" for each in findings):
        sys.exit(1)


def _checked(what: str, check: Callable[[], str]) -> Finding:
    """`check` tells what is there, or raises what is wrong."""
    try:
        return Finding("ok", what, check())
    except (ImportError, OSError, RuntimeError, PackageNotFoundError) as error:
        return Finding("error", what, first_line(error), "make install")


def _packages() -> Iterator[Finding]:
    right = sys.version_info >= (3, 10)
    yield Finding("ok" if right else "error", "Python", platform.python_version(), "" if right else "MaC needs 3.10 or later")
    yield _checked("torch and torchvision", _torch)
    yield _checked("HDF5", _hdf5)


def _torch() -> str:
    import torch
    import torchvision
    from torchvision.ops import nms

    nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # compiled against this torch, or it does not load
    return f"{torch.__version__} and {torchvision.__version__} work together"


def _hdf5() -> str:
    import h5py

    return f"h5py {h5py.version.version}, HDF5 {h5py.version.hdf5_version}"


def _device(device: str) -> Finding:
    try:
        import torch

        from pipeline.compute.device import has_bfloat16, pick

        on = pick(device)
        bfloat16 = "computes in bfloat16" if has_bfloat16(on) else "no bfloat16 in hardware: precision auto is float32"
        if on.type == "cuda":
            memory = torch.cuda.get_device_properties(on).total_memory
            return Finding("ok", "device", f"{torch.cuda.get_device_name(on)}, {_bytes(memory)}, {bfloat16}")
        capability = torch.backends.cpu.get_cpu_capability()
        return Finding("ok", "device", f"CPU, {torch.get_num_threads()} threads, {capability}, {bfloat16}")
    except (MacError, ImportError) as error:
        return Finding("error", "device", str(error))


def _dvc() -> Iterator[Finding]:
    try:
        yield Finding("ok", "DVC", version("dvc"))
    except PackageNotFoundError:
        yield Finding("warning", "DVC", "not installed", "the stages run one by one as 'mac <stage>'; pip install 'mac-robust[dvc]'")
        return
    said = subprocess.run([sys.executable, "-m", "dvc", "version"], capture_output=True, text=True).stdout
    told = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    if "Cache types" not in told:
        yield Finding("warning", "DVC cache", "this folder is in no DVC repository, or nothing is cached yet")
        return
    links = told["Cache types"]
    cheap = any(kind in links for kind in ("reflink", "hardlink", "symlink"))
    yield Finding(
        "ok" if cheap else "warning", "DVC cache", f"links by {links}" if cheap else "can only copy: every artefact lies on the disk twice",
        "" if cheap else "put .dvc/cache on the same file system as data (dvc cache dir)",
    )  # fmt: skip


def _project(params_path: Path, layout: Layout, device: str) -> tuple[list[dict[str, Any]], list[Finding]]:
    """The stages' needs, and what is to be said of parameters, dataset, weights and disk."""
    from pipeline import params
    from pipeline.compute.device import pick
    from pipeline.datasets import read
    from pipeline.tools.estimate import needs

    chosen = params.load(params_path)
    findings = [Finding("ok", "parameters", str(params_path))]
    weights = chosen.model.weights
    if Path(weights).suffix:
        there = Path(weights).is_file()
        findings.append(Finding("ok" if there else "error", "weights", weights, "" if there else "model.weights: no such file"))
    if Path(chosen.dataset.root).as_posix() == PAINTED and not Path(PAINTED).exists():
        findings.append(Finding("ok", "dataset", f"{chosen.dataset.root}: not painted yet; 'dvc repro' or 'mac demo' does that"))
        return [], findings
    try:
        dataset = read(chosen.dataset)
        found = needs(chosen, dataset, usable_cores(), pick(device))
    except MacError as error:
        return [], [*findings, Finding("error", "dataset", str(error))]
    groups = dataset.groups
    about = f"{len(dataset.records)} images, classes {', '.join(groups.classes)}"
    findings.append(
        Finding("ok", "dataset", f"{chosen.dataset.root}: {about}; spurious attribute {', '.join(groups.attributes) or 'unknown'}")
    )
    folder = layout.data if layout.data.is_dir() else Path()
    free, total = shutil.disk_usage(folder).free, sum(each.bytes for each in found)
    enough = free > 1.5 * total
    need = f"{_bytes(free)} free in {folder}, the artefacts need about {_bytes(total)}"
    remedy = "" if enough else "free some, or lower dataset.stored_size or features.draws"
    findings.append(Finding("ok" if enough else "error" if free < total else "warning", "disk", need, remedy))
    return [asdict(each) for each in found], findings


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
