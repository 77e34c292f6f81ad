import pytest
import torch

from pipeline.compute.ranks import ALONE, ranks


def test_without_torchrun_there_is_this_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    device, model, values = torch.device("cpu"), torch.nn.Linear(1, 1), torch.ones(3)
    with ranks(device) as (found, on):
        assert (found, on) == (ALONE, device)
        assert found.first
        assert found.wrap(model) is model
        assert found.total(values).tolist() == [1, 1, 1]
        found.wait()
