import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import entropy

from pipeline.last_layer import self
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.method import Cached, NotApplicableError
from pipeline.last_layer.table import Resident
from pipeline.params.baselines import BaselinesParams
from pipeline.params.sweep import PenaltyParams
from pipeline.project import Project
from pipeline.steps.baselines import baselines
from pipeline.tools.export import export
from pipeline.tools.heads import named_head
from tests import cached as made
from tests import made_up
from tests.cached import AUTO, FIT, originals

L2S = PenaltyParams(l2s=[0.0])


@pytest.fixture
def kept(cached: Cached) -> Cached:
    """40 of 60 rows are held out, and two early epochs are kept."""
    logits = torch.from_numpy(made.early([1, 4], 60)["logits"])
    return replace(cached, unseen=torch.arange(60) % 3 > 0, early={1: logits[0], 4: logits[1]})


def selected(cached: Cached, epoch: int, n: int) -> NDArray[np.int64]:
    """The held-out rows with the highest divergence, by SciPy."""
    logits = cached.erm.logits(originals(cached.views))[0, 0].numpy().astype(np.float64)
    early, erm = (
        np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in (cached.early[epoch].numpy(), logits)
    )
    rows = np.flatnonzero(cached.unseen)
    return rows[np.argsort(-entropy(early[rows], erm[rows], axis=1))[:n]]


def by_torch(cached: Cached, rows: NDArray[np.int64], lr: float) -> Heads:
    """The rows' head by PyTorch's own SGD; the mean loss of each class weighs alike."""
    x, label = originals(cached.views)[rows], cached.views.label[rows]
    w, b = (part[0, 0].clone().requires_grad_() for part in (cached.erm.weight, cached.erm.bias))
    optimizer = torch.optim.SGD([w, b], lr=lr, momentum=0.9)
    for _ in range(250):
        loss = F.cross_entropy(x @ w.T + b, label, reduction="none")
        optimizer.zero_grad()
        torch.stack([loss[label == c].mean() for c in label.unique()]).mean().backward()
        optimizer.step()
    return Heads(w.detach()[None, None], b.detach()[None, None])


def test_it_agrees_with_scipy_and_pytorch(kept: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of every setting, the choice among the settings, and the chosen head."""
    monkeypatch.setattr(self, "SIZES", (6, 15))
    monkeypatch.setattr(self, "RATES", (1e-3, 1e-2))
    found = self.fit(kept)
    heads = {
        setting: by_torch(kept, selected(kept, *setting[:2]), setting[2])
        for setting in product((1, 4), (6, 15), (1e-3, 1e-2))
    }
    scores = {}
    for setting, head in heads.items():
        worst, mean = kept.validation.scores(head)
        scores[setting] = (worst.item(), mean.item())
    best = max(scores, key=lambda setting: scores[setting])
    assert found.chosen == dict(zip(("epoch", "n", "lr"), best, strict=True))
    torch.testing.assert_close(found.heads.weight, heads[best].weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.heads.bias, heads[best].bias, rtol=1e-4, atol=1e-5)
    assert found.note == ""


def test_all_rows_are_taken_where_there_are_few_and_a_note_says_that_erm_saw_them(cached: Cached) -> None:
    logits = torch.from_numpy(made.early([3], 10)["logits"][0])
    few = replace(cached.views, table=Resident(originals(cached.views)[:10]), label=cached.views.label[:10])
    unseen = torch.zeros(10, dtype=torch.bool)
    found = self.fit(replace(cached, views=few, unseen=unseen, early={3: logits}))
    assert (found.chosen["epoch"], found.chosen["n"]) == (3, 10)
    assert "none was held out" in found.note


def test_a_class_without_images_to_learn_from_is_told(
    cached: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.from_numpy(made.early([3], 60)["logits"][0])
    unseen = cached.views.label == 1
    found = self.fit(replace(cached, unseen=unseen, early={3: logits}))
    assert found.note == "1 of 2 classes have no image among those that it learns from"
    # In 20 rows of each class, those of class 1 disagree the most; 20 rows are taken.
    places = [torch.where(cached.views.label == c)[0][:20] for c in (0, 1)]
    unseen = torch.zeros_like(unseen)
    unseen[torch.cat(places)] = True
    early = cached.erm.logits(originals(cached.views))[0, 0].clone()
    early[places[1]] = early[places[1]].flip(1) * 9
    monkeypatch.setattr(self, "SIZES", (20,))
    found = self.fit(replace(cached, unseen=unseen, early={3: early}))
    assert found.note == "1 of 2 classes have no image in the disagreement set"


def test_equal_rows_keep_their_order_and_a_class_may_be_missing() -> None:
    early = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    assert self.by_disagreement(early, torch.zeros(4, 2)).tolist() == [1, 3, 0, 2]
    label = torch.tensor([0, 2, 2, 2, 1])
    assert self.balanced(torch.tensor([0, 1, 3]), label).tolist() == [0.5, 0.25, 0, 0.25, 0]


def run(project: Project, methods: list[str]) -> str:
    params = BaselinesParams.model_validate({"methods": methods})
    with project.open("images", "erm", "features") as given:
        out = project.path("baselines")
        return baselines(given, out, params, L2S, FIT, AUTO, made.context(project.data))


def test_the_logits_are_those_of_the_retraining_set_before_erms_own_epoch(tmp_path: Path) -> None:
    project = made.write(tmp_path, kept=[2, 5, 6, 7])
    with project.open("images", "erm", "features") as given:
        found = Cached.of(given, FIT, L2S.l2s, "auto", torch.device("cpu")).early
    logits = made.early([2, 5, 6, 7], 60)["logits"]
    assert list(found) == [2, 5]
    assert [np.array_equal(found[epoch], logits[e]) for e, epoch in enumerate(found)] == [True, True]


def test_without_an_epoch_before_erms_own_it_is_left_out_with_its_reason(
    cached: Cached, tmp_path: Path
) -> None:
    reason = "needs the predictions of an epoch before ERM's own (train.keep_epochs)"
    with pytest.raises(NotApplicableError, match=re.escape(reason)):
        self.fit(cached)
    assert f"SELF is left out: {reason}" in run(made.write(tmp_path, kept=[6]), ["erm", "self"])


def test_its_head_can_be_exported(tmp_path: Path) -> None:
    project = made_up.write(tmp_path, kept=[1])
    run(project, ["self"])
    with project.open("baselines") as given:
        head = named_head(given, "self")
        np.testing.assert_array_equal(head.head.weight, given.model("baselines").read()["self.weight"])
    assert (head.title, head.labels, head.chosen["epoch"]) == ("SELF", "validation, to choose", 1)
    assert export(project, "self", tmp_path / "self.safetensors", "safetensors").images == 20
