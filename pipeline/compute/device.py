"""Which device computes, and in which precision."""

import ctypes
import platform
import re
import sys
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import psutil
import torch

from pipeline.errors import MacError
from pipeline.params.block import Precision


def pick(name: str) -> torch.device:
    """The device to compute on in this process. cuDNN is set to use deterministic kernels only.

    Args:
        name: `auto` (CUDA if there is a device, else the CPU), `cpu`, `cuda` or `cuda:N`.

    Raises:
        MacError: another name, or a CUDA device that is not there.
    """
    has_cuda = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if has_cuda else "cpu"
    on = named(name)
    if on.type == "cuda" and not has_cuda:
        raise MacError(f"device {name}: PyTorch sees no CUDA device here; use cpu")
    if on.type == "cuda" and (on.index or 0) >= (count := torch.cuda.device_count()):
        raise MacError(f"device {name}: the last CUDA device that PyTorch sees here is cuda:{count - 1}")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return on


def named(name: str) -> torch.device:
    """The device `cpu`, `cuda` or `cuda:N`, whether this machine has it or not.

    Raises:
        MacError: another name.
    """
    if not re.fullmatch(r"cpu|cuda(:(0|[1-9][0-9]?))?", name):
        raise MacError(f"device {name}: should be auto, cpu, cuda or cuda:N")
    return torch.device(name)


def keep_freed_memory() -> None:
    """Tell glibc's malloc to keep the memory that is freed.

    By default it returns large blocks to the kernel, which must then clear the pages for the next batch.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries than glibc do not have it
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4  # their numbers in malloc.h
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, -1)


def free_memory(device: torch.device) -> int:
    """How many bytes of memory a GPU, or the machine, can give now; a container up to its limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free, group = int(psutil.virtual_memory().available), Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError, KeyError):  # without control groups, or without a limit: "max"
        used = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free = min(free, int((group / "memory.max").read_text()) - int(used["anon"]))
    return max(0, free)


def forward_batch(device: torch.device) -> int:
    """How many images go through the network at a time.

    On a CPU they are few, because large activations do not fit into its caches. On a GPU they are enough to
    use all of it.
    """
    return 128 if device.type == "cuda" else 32


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself computes in bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported())


def hardware(device: torch.device) -> str:
    """What of this machine a forward pass depends on, bit by bit: the GPU, or the CPU and its instructions.

    It does not depend on the number of threads. A training on a CPU does.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    bfloat16 = ", bfloat16" if has_bfloat16(device) else ""
    return f"{_cpu_name()} ({torch.backends.cpu.get_cpu_capability()}{bfloat16})"


def hardware_of(device: torch.device, workers: tuple[str, ...]) -> tuple[str, ...]:
    """What a stage computes on: all kinds of `hardware` that its workers have; without any, that of here."""
    return workers or (hardware(device),)


def training_on(device: torch.device) -> str:
    """What of this process a training depends on, bit by bit: also the number of threads of a CPU."""
    if device.type == "cuda":
        return hardware(device)
    return f"{hardware(device)}, {torch.get_num_threads()} threads"


def _cpu_name() -> str:
    """The name of the model of the CPU, if it can be found."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())  # ARM has no names there


def dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """What the network computes in on this device: float32 or bfloat16."""
    in_bfloat16 = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    return torch.bfloat16 if in_bfloat16 else torch.float32


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """A context in which a float32 model computes in `precision`."""
    in_bfloat16 = dtype(device, precision) == torch.bfloat16
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=in_bfloat16)
