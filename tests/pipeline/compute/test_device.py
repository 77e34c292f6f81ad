import pytest
import torch

from pipeline.compute import device
from pipeline.errors import MacError

CPU = torch.device("cpu")


def test_a_device_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.pick("auto").type == "cpu"
    with pytest.raises(MacError, match="^device cuda: PyTorch sees no CUDA device here; use cpu$"):
        device.pick("cuda")
    with pytest.raises(MacError, match="^device gpu: should be auto, cpu"):
        device.pick("gpu")
    assert device.named("cuda:1").index == 1  # another machine may have it


def test_auto_is_bfloat16_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has in (False, True):
        monkeypatch.setattr(device, "has_bfloat16", lambda _device, has=has: has)
        assert device.dtype(CPU, "auto") == (torch.bfloat16 if has else torch.float32)
        assert device.dtype(CPU, "float32") == torch.float32
        assert device.dtype(CPU, "bfloat16") == torch.bfloat16
        with device.autocast(CPU, "auto"):
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert (product.dtype == torch.bfloat16) is has
