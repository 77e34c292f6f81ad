"""Stage baselines: what else could be done with the last layer, on the same cached features, in seconds each."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import store
from pipeline.compute.progress import log, track
from pipeline.errors import MacError
from pipeline.last_layer import afr, dfr, group_dro, llr
from pipeline.last_layer.baselines import Cached, Fitted, Method, NotApplicableError
from pipeline.last_layer.heads import Heads
from pipeline.last_layer.mac import load_views
from pipeline.last_layer.validation import Validation
from pipeline.metrics import SIGNS, Groups
from pipeline.params import BaselinesParams, RetrainParams
from pipeline.parts import held_out
from pipeline.results import tables
from pipeline.results.scores import head_scores

METHODS: dict[str, Method] = {
    "erm": Method("ERM", "the head as trained", "none", lambda cached: Fitted(cached.erm, {})),
    "llr": Method("LLR", "last layer retrained on the originals", "validation, to choose", partial(llr.fit, weights="none")),
    "cb_llr": Method("CB-LLR", "the same, classes weighing alike", "validation, to choose", partial(llr.fit, weights="balanced")),
    "afr": Method("AFR", "Qiu et al. 2023", "validation, to choose", afr.fit),
    "dfr": Method("DFR", "Kirichenko et al. 2023", "validation, to train", partial(dfr.fit, split="validation")),
    "dfr_train": Method("DFR (training groups)", "Kirichenko et al. 2023", "training, to train", partial(dfr.fit, split="training")),
    "group_dro": Method("Group DRO (last layer)", "Sagawa et al. 2020", "training, to train", group_dro.fit),
}


def baselines(
    images_path: Path, features_path: Path, erm_path: Path, out: Path, params: BaselinesParams, retraining: RetrainParams, on: torch.device
) -> str:
    """Fit each of `params.methods` and write `out`, a JSON file; return the table to print.

    `methods.<name>` says what the method is, the group labels that it saw, what validation chose, and has the metrics of
    `scores.scores` on the validation and the test split; `left_out.<title>` says why a method cannot be had on this dataset.

    Raises:
        MacError: no such method, or none of them can be had here.
    """
    unknown = [name for name in params.methods if name not in METHODS]
    if unknown:
        raise MacError(f"baselines.methods: no method {', '.join(unknown)}; there are {', '.join(METHODS)}")
    with store.open_artefact(images_path, "images") as images:
        erm = store.open_model(erm_path, "erm", {"images": images.digest})
        with store.open_artefact(features_path, "features", {"images": images.digest, "erm": erm.digest}) as features:
            groups = Groups.of(images)
            split, label, attribute = (images[name][:] for name in ("split", "label", "attribute"))
            in_training = np.flatnonzero(split == 0)
            training = groups.grouping(label[in_training], attribute[in_training])
            rows = features["train/row"][:]
            kept = groups.grouping(label[rows], attribute[rows])
            trained = erm.provenance.params["train"]
            out_of_erm = in_training[held_out(label[in_training], trained["hold_out"], trained["seed"])]
            cached = Cached(
                views=load_views(features, retraining, on, interventions=False),
                group=torch.from_numpy(kept.index).to(on) if kept.kind == "group" else None,
                held_out=torch.from_numpy(np.isin(rows, out_of_erm)).to(on),
                validation=Validation.of(features, on),
                erm=Heads.of(*erm.head()).to(on),
                params=retraining,
            )
            results: dict[str, Any] = {}
            left_out: dict[str, str] = {}
            for name in track(params.methods, "baselines", len(params.methods), "methods"):
                method = METHODS[name]
                if name == "erm" and trained["select"] == "best":
                    method = replace(method, labels="validation, to choose")
                try:
                    fitted = method.fit(cached)
                except NotApplicableError as reason:
                    left_out[method.title] = str(reason)
                    log.warning("%s is left out: %s", method.title, reason)
                    continue
                weight, bias = (part[:, 0].cpu().numpy() for part in (fitted.heads.weight, fitted.heads.bias))
                log.info("%s: fitted", method.title)
                results[name] = _described(method, fitted) | {
                    part: head_scores(features, part, weight, bias, training) for part in ("val", "test")
                }
            if not results:
                raise MacError(f"baselines.methods: none of them can be had on this dataset ({'; '.join(left_out.values())})")
            made_from = {"features": features.digest, "erm": erm.digest}
    found = {"made_from": made_from, "methods": results, "left_out": left_out}
    store.write_json(out, found)
    return tables.of_baselines(found)


def _described(method: Method, fitted: Fitted) -> dict[str, object]:
    described = {"title": method.title, "source": method.source, "labels": method.labels, "sign": SIGNS[method.labels]}
    return described | {"chosen": fitted.chosen, "note": fitted.note, "seeds": len(fitted.heads.bias)}
