import numpy as np
import pytest
import torch

from pipeline.method.controls import noise, resolution, shares
from pipeline.network.classifier import Classifier
from tests.networks import Tokens, settled


@pytest.mark.parametrize(("model", "side", "expected"), [("squeezenet1_1", 96, 5), ("tokens", 32, 4)])
def test_the_resolution_is_that_of_the_network_s_maps(model: str, side: int, expected: int) -> None:
    network = Classifier(Tokens(), 3) if model == "tokens" else settled(model)
    assert resolution(network.eval(), side) == (expected, expected)


def test_noise_depends_on_seed_and_row_alone() -> None:
    three = noise(np.array([7, 8, 9]), (5, 4), seed=0)
    assert (three.shape, three.dtype) == ((3, 5, 4), np.float32)
    np.testing.assert_array_equal(noise(np.array([9]), (5, 4), seed=0), three[2:])
    assert (noise(np.array([9]), (5, 4), seed=1) != three[2:]).any()


def test_a_given_mask_has_its_share_of_every_cell() -> None:
    mask = torch.zeros(1, 4, 6, dtype=torch.bool)
    mask[0, :2, :4] = True
    mask[0, 3, 5] = True
    assert shares(mask, (2, 3)).tolist() == [[[1, 1, 0], [0, 0, 0.25]]]
