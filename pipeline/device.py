"""Which device computes, and in which precision."""

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
    try:
        return torch.device(name)
    except RuntimeError:
        raise MacError(f"--device {name}: should be auto, cpu, cuda or cuda:N") from None


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself computes in bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """A context in which forward passes run in `precision`."""
    enabled = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
