import pytest
import torch

from pipeline.compute.code import code_of
from pipeline.compute.ranks import ALONE, Ranks, ranks
from pipeline.errors import MacError


def test_without_torchrun_there_is_this_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    device, model, values = torch.device("cpu"), torch.nn.Linear(1, 1), torch.ones(3)
    with ranks(device) as (found, on):
        assert (found, on) == (ALONE, device)
        assert found.first
        assert found.wrap(model) is model
        assert found.total(values).tolist() == [1, 1, 1]
        found.wait()
        assert found.each("x") == ["x"]
        found.require_same_code("pipeline.errors")


def test_processes_with_other_code_do_not_train_together(monkeypatch: pytest.MonkeyPatch) -> None:
    own = code_of("pipeline.steps.train")
    each = [own, own, {**own, "pipeline.network.training": "other"}]
    monkeypatch.setattr(Ranks, "each", lambda _ranks, _value: each)
    with pytest.raises(
        MacError, match=r"^process 2 has other code than process 0 \(pipeline.network.training\)"
    ):
        Ranks(0, 3).require_same_code("pipeline.steps.train")
