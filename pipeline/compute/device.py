"""Which device computes, and in which precision."""

import ctypes
import sys
from contextlib import AbstractContextManager

import torch

from pipeline.errors import MacError
from pipeline.params import Precision


def pick(name: str) -> torch.device:
    """`auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N` to a device, with deterministic kernels chosen.

    Raises:
        MacError: CUDA asked for where there is none.
    """
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise MacError(f"--device {name}: PyTorch sees no CUDA device here; use --device cpu")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return named(name)


def named(name: str) -> torch.device:
    """`cpu`, `cuda` or `cuda:N` to a device, whether it is here or not.

    Raises:
        MacError: another name.
    """
    try:
        return torch.device(name)
    except RuntimeError:
        raise MacError(f"--device {name}: should be auto, cpu, cuda or cuda:N") from None


def keep_freed_memory() -> None:
    """Have glibc's malloc keep what is freed: by default it gives large blocks back, and the kernel clears each page of the next batch."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None  # other C libraries have none
    if mallopt:
        m_trim_threshold, m_mmap_max = -1, -4  # of malloc.h
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, -1)


def forward_batch(device: torch.device) -> int:
    """Images a forward pass: on a CPU few, as large activations fall out of its caches; on a GPU enough to fill it."""
    return 128 if device.type == "cuda" else 32


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself computes in bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported())


def dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """What forward passes in `precision` compute in: float32 or bfloat16."""
    in_bfloat16 = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    return torch.bfloat16 if in_bfloat16 else torch.float32


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """A context in which the passes of a float32 model run in `precision`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype(device, precision) == torch.bfloat16)
