"""Artefacts that an earlier version wrote, without what was added since: one line that says what to do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import MacError
from pipeline.params.baselines import BaselinesParams
from pipeline.params.retrain import RetrainParams
from pipeline.params.sweep import PenaltyParams
from pipeline.results.diagnosis import diagnose
from pipeline.steps.baselines import baselines
from pipeline.steps.retrain import retrain
from tests import cached
from tests.cached import AUTO, FIT
from tests.conftest import edited, restate


def test_what_is_stated_is_found_and_what_is_not_is_named(tmp_path: Path) -> None:
    with cached.write(tmp_path, select="best").open("erm", "masks") as given:
        assert given.erm_labels == "validation, to choose"
        assert given.stated("masks", "side") == "core"
        with pytest.raises(MacError, match=r"masks.h5: does not state top_k; run 'mac masks'$"):
            given.stated("masks", "top_k")


def test_an_erm_that_does_not_state_what_chose_it(tmp_path: Path) -> None:
    project, context = cached.write(tmp_path), cached.context(tmp_path)
    restate(project.path("erm"), lambda about: about["params"].pop("selection"))
    message = r"erm: model.json does not state selection.criterion; run 'mac train'$"
    params, llr = RetrainParams(**FIT.model_dump(), alpha=1.0, beta=2.0), BaselinesParams(methods=["llr"])
    with project.open("images", "erm", "features") as given:
        with pytest.raises(MacError, match=message):
            retrain(given, project.path("retrained"), params, AUTO, context)
        with pytest.raises(MacError, match=message):
            baselines(given, project.path("baselines"), llr, PenaltyParams(l2s=[0]), FIT, AUTO, context)


def test_features_whose_validation_images_have_partners_of_their_own_split(tmp_path: Path) -> None:
    project = cached.write(tmp_path)
    with edited(project.path("features")) as file:
        for name in ("partner", "partner_same"):
            file.move(f"val/train_{name}", f"val/{name}")
    message = r"features.h5: of an earlier version, without 'val/train_partner'; run 'mac features'$"
    with (
        project.open("images", "erm", "masks", "features") as given,
        pytest.raises(MacError, match=message),
    ):
        diagnose(given)


def test_features_in_another_order(tmp_path: Path) -> None:
    project = cached.write(tmp_path)
    with edited(project.path("features")) as file:
        del file["train/order"]
    message = r"features.h5: dataset 'train/order' is missing; run 'mac features'$"
    with pytest.raises(MacError, match=message), project.open("features"):
        pass


def test_an_erm_that_kept_early_epochs_but_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = cached.early

    def earlier(kept: Sequence[int], count: int) -> dict[str, Any]:
        return {name: array for name, array in now(kept, count).items() if name != "erm"}

    monkeypatch.setattr(cached, "early", earlier)
    project, context = cached.write(tmp_path, kept=[1]), cached.context(tmp_path)
    llr, message = BaselinesParams(methods=["llr"]), r"is of an earlier version; run 'mac train'$"
    with project.open("images", "erm", "features") as given, pytest.raises(MacError, match=message):
        baselines(given, project.path("baselines"), llr, PenaltyParams(l2s=[0]), FIT, AUTO, context)
