from typing import get_args

import pytest
import torch

from pipeline.errors import MacError
from pipeline.method import gradient_maps
from pipeline.method.kinds import LOOK_AWAY
from pipeline.method.maps import MAPS, Batch, looks_inside, of_batch
from pipeline.network.classifier import Classifier
from pipeline.params.maps import MapParams
from tests.cached import MAPS as PARAMS
from tests.networks import Tokens, settled

OURS = ("auto", "xgradcam", "hirescam")


def test_params_yaml_names_every_map() -> None:
    named = set(get_args(MapParams.model_fields["method"].annotation))
    assert named == {*MAPS, *LOOK_AWAY}


def batch(side: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 3, side, side, generator=generator)
    return Batch(x, torch.tensor([2, 0, 1]))


@pytest.mark.parametrize("method", OURS)
def test_every_map_of_ours_takes_any_network(method: str) -> None:
    params = PARAMS.model_copy(update={"method": method})
    for model, side, expected in ((settled("squeezenet1_1"), 96, 5), (Classifier(Tokens(), 3), 32, 4)):
        with torch.no_grad():
            found = MAPS[method](model.eval(), batch(side), params)
        assert found.cam.shape == (3, expected, expected)
        assert found.cam.dtype == torch.float32
        assert found.target.tolist() == [2, 0, 1]


def test_auto_is_the_map_that_suits_the_network() -> None:
    with torch.no_grad():
        for architecture, expected in (("squeezenet1_1", "xgradcam"), ("mobilenet_v3_small", "hirescam")):
            model = settled(architecture)
            found, same = (MAPS[each](model, batch(96), PARAMS).cam for each in ("auto", expected))
            assert torch.equal(found, same)


def test_attention_needs_a_transformer() -> None:
    with torch.no_grad(), pytest.raises(MacError, match="attention needs a vision transformer"):
        MAPS["attention"](settled("squeezenet1_1"), batch(96), PARAMS)


def test_a_prediction_is_explained_from_the_same_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model, passes = settled("squeezenet1_1"), []
    model.trunk.register_forward_hook(lambda *_: passes.append(1))
    params = PARAMS.model_copy(update={"target": "prediction"})
    with torch.no_grad():
        found = MAPS["xgradcam"](model, batch(96), params)
        assert len(passes) == 1
        assert torch.equal(found.target, model(batch(96).x).argmax(1))


@pytest.mark.parametrize("target", ["label", "prediction"])
def test_a_flipped_map_is_the_mean_of_two_that_explain_the_same_class(target: str) -> None:
    model, images = settled("squeezenet1_1"), batch(96)
    params = PARAMS.model_copy(update={"target": target, "flip": True})
    with torch.no_grad():
        found = of_batch(model, images, params)
        expected = images.label if target == "label" else model(images.x).argmax(1)
        assert torch.equal(found.target, expected)
        for image, cam, label in zip(images.x, found.cam, expected, strict=True):
            state = model.encode(torch.stack([image, image.flip(2)]))
            each = gradient_maps.of_head(model.trunk, state, model.head.weight, label.expand(2))
            torch.testing.assert_close(cam, (each[0] + each[1].flip(1)) / 2)
        assert not torch.allclose(found.cam, MAPS["xgradcam"](model, images, params).cam)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, False), ({"layer": "stage3"}, True), ({"method": "layercam"}, True), ({"method": "random"}, False)],
)
def test_what_needs_inner_layers_says_so(changes: dict[str, str], expected: bool) -> None:
    assert looks_inside(PARAMS.model_copy(update=changes)) == expected
