"""Stage study-run: one run of the study. It keeps what the methods answer, and what they score."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.comparison.ablation import Measured, compare
from pipeline.compute.context import Context
from pipeline.compute.progress import log
from pipeline.last_layer import erm
from pipeline.method.kinds import CONTROLS
from pipeline.metrics import SIGNS, Labels, seen
from pipeline.params.baselines import BaselinesParams
from pipeline.params.features import FeaturesParams
from pipeline.params.inputs import InputParams
from pipeline.params.masks import MasksParams
from pipeline.params.model import ModelParams
from pipeline.params.retrain import RetrainParams
from pipeline.params.retraining_set import RetrainingSetParams
from pipeline.params.saliency import SaliencyParams
from pipeline.params.selection import SelectionParams
from pipeline.params.study import StudyParams, of_every_run
from pipeline.params.sweep import SweepParams
from pipeline.params.train import TrainParams
from pipeline.project import Opened
from pipeline.results.choice import Choice
from pipeline.results.coverage import by_group
from pipeline.results.diagnosis import diagnose
from pipeline.results.early_stop import stopped_early
from pipeline.results.scores import answers, head_scores
from pipeline.results.tables import worst_of
from pipeline.store import FittedHeads
from pipeline.study.names import ERM, MAC, MASKS

_FROM_BASELINES = ("title", "source", "labels", "sign", "chosen", "note", "seeds", "val", "test")


def run(
    given: Opened,
    out: Path,
    study: StudyParams,
    inputs: InputParams,
    model: ModelParams,
    train: TrainParams,
    selection: SelectionParams,
    retraining_set: RetrainingSetParams,
    saliency: SaliencyParams,
    masks: MasksParams,
    features: FeaturesParams,
    sweep: SweepParams,
    retrain: RetrainParams,
    baselines: BaselinesParams,
    context: Context,
) -> str:
    """Retrain with random and true masks, and write the folder `out`; return a line to print.

    metrics.json has, by method, the scores of `results.scores.scores` on the validation and the test split,
    and the settings that were chosen; the coverage of the masks by group; the diagnosis; and the groups of
    the test split. The methods are ERM, MaC, those of stage baselines, and MaC with the masks of the
    ablation. model.safetensors has their heads, `<name>.weight` (S, C, D) and `<name>.bias` (S, C).
    answers.safetensors has the class that each head sees in each test image, `<name>` (S, N) int16.
    test.safetensors has the `row` in images.h5, the `label` and the `group` of each test image, (N,).
    model.json has the parameters of all stages of the run.

    Args:
        given: images, erm, originals, masks, features, retrained and baselines.
        study: names this run alone: one seed, one variant. Of it, model.json has the threads.

    Raises:
        MacError: as `ablation.compare`.
    """
    ((variant, changes),) = study.variants.items()
    (seed,) = study.seeds
    rows, heads = _last_layer(given)
    if saliency.method in CONTROLS:
        what = saliency.method
        log.info("study: saliency.method is the control '%s', which is compared with no other", what)
    else:
        compared = compare(given, saliency, masks, features, sweep, retrain, selection, context)
        for kind, measured in compared.kinds.items():
            name, title = MASKS[kind]
            rows[name], heads[name] = _of_masks(given, title, measured), measured.heads
    grouping, cached, diagnosis = given.grouping("test"), given.file("features"), diagnose(given)
    convergence = given.metrics("baselines")["convergence"]
    made_from = _made_from(given)
    metrics = {
        "made_from": made_from,
        "variant": variant,
        "changes": changes,
        "seed": seed,
        "kind": grouping.kind,
        "groups": dict(zip(grouping.names, grouping.count.tolist(), strict=True)),
        "methods": rows,
        "left_out": given.metrics("baselines")["left_out"],
        "criterion": given.stated("retrained", "criterion"),
        "coverage": _coverage(given),
        "diagnosis": {
            "verdict": diagnosis["verdict"],
            "dependence": diagnosis["dependence"],
            "stopped_early": bool(convergence) and stopped_early(convergence),
        },
    }
    made = of_every_run(
        (
            study,
            inputs,
            model,
            train,
            selection,
            retraining_set,
            saliency,
            masks,
            features,
            sweep,
            retrain,
            baselines,
        )
    )
    test = {"row": cached["test/row"][:], "label": cached["test/label"][:], "group": grouping.index}
    with store.create_folder(out) as folder:
        store.write_model(
            folder,
            "run",
            _tensors(heads),
            given.model("erm").spec,
            made,
            made_from,
            answers=_answers(heads, cached["test/original"][:]),
            test=test,
        )
        store.write_json(folder / "metrics.json", metrics)
    worst, _ = worst_of(rows[ERM]["test"])
    before, after = (100 * rows[name]["test"][worst]["mean"] for name in (ERM, MAC))
    return f"{variant}, seed {seed}: test {worst.replace('_', ' ')} ERM {before:.1f}, MaC {after:.1f}"


def _made_from(given: Opened) -> dict[str, str]:
    """The digests of the images, and of the user's files (weights, masks): what all seeds have in common.

    Images that were prepared for this run alone are no artefact of the project that the run is kept in.
    """
    named = "images" if "images" in given.project.elsewhere else "its own images"
    found = {named: given.digests("images")["images"]}
    for artefact in (given.model("erm"), given.file("masks")):
        for name, digest in artefact.provenance.made_from.items():
            if name not in given.project.kinds:
                found[name] = digest
    return found


def _last_layer(given: Opened) -> tuple[dict[str, dict[str, Any]], dict[str, FittedHeads]]:
    """The rows and the heads of ERM, MaC and the methods of stage baselines."""
    fitted, found = given.model("baselines").read(), given.metrics("baselines")["methods"]
    choice, labels = Choice.of_retrained(given), given.stated("retrained", "labels")
    rows = {
        ERM: _row(given, given.model("erm").head(), erm.METHOD.title, given.erm_labels, {}),
        MAC: _row(given, given.model("retrained").heads(), "MaC", labels, choice.values),
    }
    heads = {ERM: given.model("erm").head(), MAC: given.model("retrained").heads()}
    for name, row in found.items():
        if name != ERM:
            rows[name] = {key: row[key] for key in _FROM_BASELINES}
            heads[name] = FittedHeads.of(fitted, name)
    return rows, heads


def _row(
    given: Opened, heads: FittedHeads, title: str, labels: Labels, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    scores = {split: head_scores(given, heads, split) for split in ("val", "test")}
    return _described(title, labels, chosen, len(heads), scores)


def _described(
    title: str, labels: Labels, chosen: Mapping[str, Any], seeds: int, scores: Mapping[str, Any]
) -> dict[str, Any]:
    """A method's entry in metrics.json, as stage baselines has it."""
    about = {"title": title, "source": "", "labels": labels, "sign": SIGNS[labels], "note": ""}
    return {**about, "chosen": dict(chosen), "seeds": seeds, **scores}


def _of_masks(given: Opened, title: str, measured: Measured) -> dict[str, Any]:
    row = measured.row
    labels = seen("validation, to choose", row["criterion"], given.erm_labels)
    chosen: dict[str, Any] = {key: row[key] for key in ("alpha", "beta", "l2") if key in row}
    scores = {split: row[split] for split in ("val", "test")}
    return _described(title, labels, chosen, row["seeds"], scores)


def _coverage(given: Opened) -> list[dict[str, Any]]:
    """How well maps and masks cover the true foregrounds, of each group with any; as in examples.h5."""
    found = by_group(given.file("images"), given.file("masks"), given.model("erm").spec)
    return [asdict(row) for row in found if row.n]


def _tensors(heads: Mapping[str, FittedHeads]) -> dict[str, NDArray[np.float32]]:
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, each in heads.items():
        tensors |= each.named(name)
    return tensors


def _answers(heads: Mapping[str, FittedHeads], x: NDArray[np.float32]) -> dict[str, NDArray[np.int16]]:
    """The class that each head sees in each image, from its features (N, D): (S, N) by method."""
    return {name: answers(each.logits(x)).astype(np.int16) for name, each in heads.items()}
