from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from pipeline.errors import MacError
from pipeline.network.weights import torchvision_network


def build(weights: Path | str) -> torch.nn.Module:
    return torchvision_network("resnet18", str(weights), head=("fc",))


def test_weights_from_a_pth_file(tmp_path: Path) -> None:
    reference = torchvision.models.resnet18(weights=None)
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    found, expected = build(tmp_path / "weights.pth").state_dict(), reference.state_dict()
    for name in expected:
        assert torch.equal(found[name], expected[name]) == (not name.startswith("fc.")), name


def test_the_head_may_be_missing_or_of_other_classes(tmp_path: Path) -> None:
    reference = torchvision.models.resnet18(weights=None, num_classes=7)
    state = reference.state_dict()
    save_file(state, tmp_path / "seven.safetensors")
    save_file({k: v for k, v in state.items() if "fc." not in k}, tmp_path / "none.safetensors")
    for file in ("seven.safetensors", "none.safetensors"):
        assert torch.equal(build(tmp_path / file).conv1.weight, reference.conv1.weight)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"conv1.weight": Evil()}, tmp_path / "weights.pth")
    with pytest.raises(MacError, match="cannot be read as .pth"):
        build(tmp_path / "weights.pth")
    assert not (tmp_path / "owned").exists()


def test_weights_of_another_architecture_are_named(tmp_path: Path) -> None:
    save_file(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "r50.safetensors")
    message = r"r50.safetensors: 'layer1.0.conv1.weight' should be .* of another architecture"
    with pytest.raises(MacError, match=message):
        build(tmp_path / "r50.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "r50.safetensors").read_bytes()[:1000])
    with pytest.raises(MacError, match=r"cut.safetensors: cannot be read"):
        build(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("IMAGENET", r"model.weights: 'IMAGENET' is neither none, nor .*IMAGENET1K_V1"),
        ("missing.pth", "model.weights: missing.pth: no such file"),
    ],
)
def test_unknown_weights_are_one_line(weights: str, message: str) -> None:
    with pytest.raises(MacError, match=message):
        build(weights)


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(MacError, match="model.architecture: 'resnet19' is not a torchvision model"):
        torchvision_network("resnet19", "none", head=("fc",))


def test_without_a_network_a_local_file_is_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models.get_model", no_network)
    with pytest.raises(MacError, match="IMAGENET1K_V1 of resnet18 could not be downloaded .* local file"):
        build("IMAGENET1K_V1")
