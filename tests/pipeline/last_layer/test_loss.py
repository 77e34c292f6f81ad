import torch
import torch.nn.functional as F

from pipeline.last_layer.loss import cross_entropy, gradient_, one_hot


def test_cross_entropy_is_pytorch_s_in_any_layout() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 2, 1, 1, 0])
    expected = F.cross_entropy(logits, label, reduction="none")
    onehot = F.one_hot(label, 3).float()
    assert torch.equal(cross_entropy(logits, onehot, axis=1)[0], expected)
    torch.testing.assert_close(cross_entropy(logits.T, onehot.T, axis=0)[0], expected)
    heads = torch.stack([logits, 2 * logits], 2)  # (rows, classes, heads)
    found, log_p = cross_entropy(heads, onehot[..., None], axis=1)
    torch.testing.assert_close(found[:, 0], expected)
    torch.testing.assert_close(log_p[..., 1], (2 * logits).log_softmax(1))


def test_labels_become_ones_and_zeros_in_any_shape() -> None:
    label = torch.tensor([[2, 0], [1, 1]])
    assert torch.equal(one_hot(label, 4), F.one_hot(label, 4).float())
    assert one_hot(label, 4, torch.float64).dtype == torch.float64


def test_the_gradient_is_autograd_s() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    onehot = F.one_hot(torch.tensor([2, 0, 1, 2]), 3).float()
    weight = torch.tensor([[1.0], [0.5], [0.0], [2.0]])
    loss, log_p = cross_entropy(logits, onehot, axis=1)
    (expected,) = torch.autograd.grad((weight[:, 0] * loss).sum(), logits)
    torch.testing.assert_close(gradient_(log_p.detach(), onehot, weight), expected)
