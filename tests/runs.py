"""Runs of the study that were made up."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline import store
from pipeline.metrics import SIGNS, Grouping
from pipeline.params.block import Block
from pipeline.params.study import of_every_run, with_changes
from pipeline.project import Project
from pipeline.results.scores import scores
from tests.made_up import SPEC

GROUPS = ["landbird_land", "landbird_water", "waterbird_land", "waterbird_water"]
GROUP = np.arange(80) % 4
LABEL = GROUP // 2
# How often each method is right, and the labels that it sees.
METHODS: dict[str, tuple[str, float, Any]] = {
    "erm": ("ERM", 0.6, "none"),
    "mac": ("MaC", 0.9, "validation, to choose"),
    "llr": ("LLR", 0.7, "validation, to choose"),
    "dfr": ("DFR", 0.99, "validation, to train"),
    "masks_own": ("MaC's masks", 0.9, "validation, to choose"),
    "masks_random": ("random masks", 0.75, "validation, to choose"),
}


def write_run(
    project: Project,
    seed: int,
    blocks: Sequence[Block],
    without: str = "",
    variant: str = "base",
    changes: Mapping[str, Any] | None = None,
    others: Mapping[str, Any] | None = None,
) -> None:
    """Write a run of one ERM, whose methods are right by chance about 80 test images.

    Args:
        blocks: the parameters that it was made with, but for `changes` and `others`.
        without: a method that it lacks.
        changes: those of its variant.
    """
    rng = np.random.default_rng(seed)
    grouping = Grouping("group", GROUPS, GROUP)
    rows, tensors, answers = {}, {}, {}
    for name, (title, right, labels) in METHODS.items():
        if name == without:
            continue
        heads = 1 if name == "erm" else 2
        seen = np.where(rng.random((heads, 80)) < right, LABEL, 1 - LABEL)
        found = scores(np.eye(2)[seen] * 3, LABEL, grouping, grouping)
        about = {"title": title, "source": "", "labels": labels, "sign": SIGNS[labels], "note": ""}
        chosen = (
            {**dict.fromkeys(("alpha", "beta"), None if seed == 1 else 2.0), "chosen_by": "sweep"}
            if name == "mac"
            else {}
        )
        rows[name] = {**about, "chosen": chosen, "seeds": heads, "val": found, "test": found}
        tensors |= {f"{name}.weight": np.zeros((heads, 2, 3), np.float32)}
        tensors |= {f"{name}.bias": np.zeros((heads, 2), np.float32)}
        answers[name] = seen.astype(np.int16)
    metrics = {
        "made_from": {}, "variant": variant, "changes": changes or {}, "seed": seed, "kind": "group",
        "groups": dict.fromkeys(GROUPS, 20), "methods": rows, "coverage": [],
        "criterion": "groups",
        "left_out": {without: {"title": "LLR", "reason": "too few"}} if without else {},
        "diagnosis": {"verdict": "holds", "dependence": "depends", "stopped_early": seed == 1},
    }  # fmt: skip
    test = {"row": np.arange(80), "label": LABEL, "group": GROUP}
    with store.create_folder(project.path("run") / variant / str(seed)) as out:
        made = of_every_run(with_changes(blocks, {**(changes or {}), **(others or {})}))
        store.write_model(out, "run", tensors, SPEC, made, {}, answers=answers, test=test)
        store.write_json(out / "metrics.json", metrics)
