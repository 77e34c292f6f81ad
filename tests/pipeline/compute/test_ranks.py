import socket

import pytest
import torch

from pipeline.compute.code import code_of
from pipeline.compute.ranks import ALONE, Ranks, _own_device, here, joined
from pipeline.errors import MacError

HOST = socket.gethostname()


def test_without_torchrun_there_is_this_process_alone() -> None:
    model, values = torch.nn.Linear(1, 1), torch.ones(3)
    found = here()
    assert found == ALONE
    assert found.first
    assert found.wrap(model) is model
    assert found.total(values).tolist() == [1, 1, 1]
    found.level(model)
    found.wait()
    found.wait_for_first()
    assert found.each("x") == ["x"]
    found.require_same("pipeline.errors", images="a")
    found.require_all(True, "")


def told(monkeypatch: pytest.MonkeyPatch, *of_others: object) -> Ranks:
    """Process 0, to which the others tell these values; all are on one machine."""

    def each(_ranks: Ranks, value: object) -> list[object]:
        return [HOST] * (len(of_others) + 1) if value == HOST else [value, *of_others]

    monkeypatch.setattr(Ranks, "each", each)
    return Ranks(0, len(of_others) + 1)


def test_only_what_process_0_does_alone_is_waited_for_with_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others take PyTorch's own connection, which gives a lost process up after ten minutes."""
    took: list[object] = []
    for name in ("barrier", "all_gather_object"):
        noted = lambda *_, group=None: took.append(group)  # noqa: E731
        monkeypatch.setattr(torch.distributed, name, noted)
    ranks = Ranks(1, 2, patient="patient", fast="fast")
    ranks.each(0)
    ranks.wait()
    ranks.wait_for_first()
    assert took == [None, None, "patient"]


def test_processes_with_other_code_or_files_do_not_train_together(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "pipeline.steps.train"
    own, same = code_of(module), {"images": "a", "parameters": [1]}
    other = {**own, "pipeline.network.training": "other"}
    with pytest.raises(
        MacError, match=rf"^process 2 on {HOST} has other code than process 0 \(pipeline.network.training\)"
    ):
        told(monkeypatch, (own, same), (other, same)).require_same(module, **same)
    with pytest.raises(MacError, match=rf"^process 1 on {HOST} has other images and parameters than"):
        told(monkeypatch, (own, {"images": "b", "parameters": [2]})).require_same(module, **same)
    told(monkeypatch, (own, same)).require_same(module, **same)


def test_what_one_cannot_do_is_told_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MacError, match=f"^process 1 on {HOST} does not see /a$"):
        told(monkeypatch, (False, "does not see /b")).require_all(True, "does not see /a")


def test_each_process_of_a_machine_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "6", "RANK": "4"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert _own_device("auto") == _own_device("cuda") == torch.device("cuda:1")
    assert _own_device("cpu") == torch.device("cpu")
    with pytest.raises(MacError, match="^device cuda:0: each process takes a GPU of its own; choose cuda"):
        _own_device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(MacError, match="^device cuda:2: the last CUDA device"):
        _own_device("auto")
    for name, value in {"WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert _own_device("cuda") == torch.device("cuda:0")
    assert _own_device("cuda:1") == torch.device("cuda:1")


def test_a_lost_connection_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object, **__: object) -> None:
        raise RuntimeError("[/pytorch/gloo/pair.cc:547] Connection closed by peer [10.0.0.2]:7")

    monkeypatch.setattr(torch.distributed, "init_process_group", lost)
    said = r"^the connection to the other processes is lost \(Connection closed by peer \[10.0.0.2\]:7\); one"
    with pytest.raises(MacError, match=said), joined("cpu"):
        pass
    assert here() == ALONE


def test_processes_that_torchrun_starts_again_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would wait for processes that have ended."""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(MacError, match="^torchrun started its processes again"), joined("cpu"):
        pass


def test_another_error_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(torch.distributed, "init_process_group", broken)
    with pytest.raises(RuntimeError, match="^size mismatch$"), joined("cpu"):
        pass
