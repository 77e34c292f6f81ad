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


@pytest.mark.parametrize("name", ["mps", "meta", "cpu:1", "cuda:", "cuda:-1", "cuda:999", "cuda:1\n", ""])
def test_another_kind_of_device_is_refused(name: str) -> None:
    for function in (device.pick, device.named):
        with pytest.raises(MacError, match="^device .*: should be auto, cpu, cuda or cuda:N$"):
            function(name)


def test_a_number_beyond_the_last_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.pick("cuda:1") == torch.device("cuda:1")
    assert device.pick("auto") == device.pick("cuda") == torch.device("cuda")
    with pytest.raises(MacError, match="^device cuda:2: the last CUDA device that PyTorch sees .* cuda:1$"):
        device.pick("cuda:2")


def test_auto_is_bfloat16_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has in (False, True):
        monkeypatch.setattr(device, "has_bfloat16", lambda _device, has=has: has)
        assert device.dtype(CPU, "auto") == (torch.bfloat16 if has else torch.float32)
        assert device.dtype(CPU, "float32") == torch.float32
        assert device.dtype(CPU, "bfloat16") == torch.bfloat16
        with device.autocast(CPU, "auto"):
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert (product.dtype == torch.bfloat16) is has


def test_the_hardware_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    named = device.hardware(CPU)
    assert torch.backends.cpu.get_cpu_capability() in named
    assert ("bfloat16" in named) == device.has_bfloat16(CPU)
    assert device.training_on(CPU) == f"{named}, {torch.get_num_threads()} threads"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "NVIDIA H100")
    assert device.hardware(torch.device("cuda")) == device.training_on(torch.device("cuda")) == "NVIDIA H100"
