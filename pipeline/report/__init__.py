"""Stage report: one self-contained page that says whether MaC is worth it here, with pictures (paper Tables 1 and 2, Figures 1 to 4)."""

import csv
import json
import platform
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from pipeline import store
from pipeline.errors import MacError
from pipeline.evaluate import measure
from pipeline.metrics import SIGNS
from pipeline.report import figures
from pipeline.report.gallery import OUTCOMES, Sources, gallery
from pipeline.results.tables import worst_of

PACKAGES = ("mac-robust", "torch", "torchvision", "numpy", "h5py", "scikit-learn", "pillow", "dvc")


@dataclass(frozen=True)
class Inputs:
    """Where everything lies; `comparison` is the second pipeline's folder, None to leave it out."""

    images: Path
    erm: Path
    masks: Path
    features: Path
    examples: Path
    retrained: Path
    baselines: Path
    sweep: Path
    timings: Path
    comparison: Path | None


def report(inputs: Inputs, out: Path) -> None:
    """Write the page.

    Raises:
        MacError: something is missing, or was made from something else than the rest.
    """
    metrics, confusion = measure(inputs.images, inputs.features, inputs.erm, inputs.retrained)
    with ExitStack() as stack:
        images = stack.enter_context(store.open_artefact(inputs.images, "images"))
        masks = stack.enter_context(store.open_artefact(inputs.masks, "masks", {"images": images.digest}))
        features = stack.enter_context(store.open_artefact(inputs.features, "features", {"images": images.digest, "masks": masks.digest}))
        erm, retrained = store.open_model(inputs.erm, "erm"), store.open_model(inputs.retrained, "retrained")
        examples = stack.enter_context(store.open_artefact(inputs.examples, "examples", {"features": features.digest, "erm": erm.digest}))
        baselines = _made_from(inputs.baselines, features.digest, "mac baselines")
        sweep = _made_from(inputs.sweep / "picked.json", features.digest, "mac sweep")
        compared = _compared(inputs.comparison, images.digest)
        made = retrained.provenance.params
        table_1 = examples.attribute("coverage")
        artefacts: dict[str, Any] = {"images.h5": images, "erm": erm, "masks.h5": masks, "features.h5": features, "retrained": retrained}
        page = {
            "dataset": f"{images.provenance.params['name']}",
            "architecture": erm.spec["architecture"],
            "metrics": metrics,
            "verdict": verdict(metrics),
            "group_bars": _group_bars(metrics),
            "table_1": table_1,
            "table_1_mean": _mean_coverage(table_1),
            "methods": _methods(metrics, baselines["methods"], compared, retrained, erm),
            "left_out": baselines["left_out"],
            "worst": worst_of(metrics["erm"]["test"])[0],
            "adjusted": "adjusted_mean" in metrics["erm"]["test"],
            "ablation": compared.get("ablation"),
            "ablation_figure": figures.differences(compared["ablation"]["differences"]) if "ablation" in compared else None,
            "sweep": sweep,
            "sweep_maps": figures.sweep_maps([{k: float(v) for k, v in row.items()} for row in _rows(inputs.sweep / "mean.csv")]),
            "learning_curves": figures.learning_curves(_rows(inputs.erm / "history.csv")),
            "retraining_curves": figures.retraining_curves(_rows(inputs.retrained / "history.csv")) if made["solver"] == "adam" else None,
            "confusion": figures.confusion([(row["actual"], row["predicted"]) for row in confusion], erm.spec["classes"]),
            "cards": gallery(Sources(images, masks, features, examples, erm, retrained)),
            "outcomes": OUTCOMES,
            "artefacts": {name: artefact.provenance for name, artefact in artefacts.items()},
            "versions": _versions(),
            "timings": _timings(inputs.timings),
            "compared": inputs.comparison is not None,
        }
    environment = Environment(loader=PackageLoader("pipeline.report", "page"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": lambda value: f"{100 * value:.1f}", "inline": _inline}
    store.write_text(out, environment.get_template("page.html").render(page))


def verdict(metrics: dict[str, Any]) -> dict[str, Any]:
    """What the page says first: the worst group and the mean of both, and how sure the difference is."""
    erm, mac = metrics["erm"]["test"], metrics["mac"]["test"]
    worst, _ = worst_of(erm)
    gain = mac[worst]["mean"] - erm[worst]
    before, after = erm[f"{worst}_interval"], mac[f"{worst}_interval"]
    apart = before["high"] < after["low"] or after["high"] < before["low"]
    return {"worst": worst.replace("_", " "), "gain": gain, "mean_gain": mac["raw_mean"]["mean"] - erm["raw_mean"], "apart": apart}


def _group_bars(metrics: dict[str, Any]) -> figures.Picture:
    erm, mac = metrics["erm"]["test"], metrics["mac"]["test"]
    _, many = worst_of(erm)
    return figures.group_bars(list(erm[many]), list(erm[many].values()), list(mac[many].values()))


def _mean_coverage(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """All groups of Table 1 together."""
    total = sum(row["n"] for row in rows)
    if not total:
        return None
    means = {name: sum(row["n"] * row[name] for row in rows) / total for name in ("map_fg", "map_bg", "mask_fg", "mask_bg")}
    return {"group": "all", "n": total, **means}


def _methods(
    metrics: dict[str, Any], baselines: dict[str, Any], compared: dict[str, Any], retrained: store.ModelFolder, erm: store.ModelFolder
) -> list[dict[str, Any]]:
    """Table 2: ERM first, then MaC, then the others."""
    made = retrained.provenance.params
    chosen = {"alpha": made["alpha"], "beta": made["beta"], "solver": made["solver"]}
    mac: dict[str, Any] = {
        "title": "MaC",
        "source": "this pipeline",
        "sign": SIGNS["validation, to choose"],
        "labels": "validation, to choose",
    }
    mac |= {"chosen": chosen, "note": "", "seeds": metrics["seeds"], "test": metrics["mac"]["test"], "ours": True}
    rows = dict(baselines)
    first = [rows.pop("erm")] if "erm" in rows else []
    others = [result for name, result in compared.items() if name != "ablation"]
    return [*first, mac, *rows.values(), *others]


def _made_from(path: Path, features: str, remedy: str) -> dict[str, Any]:
    found = store.read_json(path, remedy)
    if found.get("made_from", {}).get("features") != features:
        raise MacError(f"{path}: was made from other features than those here; run '{remedy}' again")
    return found


def _compared(folder: Path | None, images: str) -> dict[str, Any]:
    """What the second pipeline found: the ablation and a row a whole-network method."""
    if folder is None:
        return {}
    found = {}
    for name in ("jtt", "masktune", "ablation"):
        path = folder / name / "metrics.json"
        found[name] = store.read_json(path, "dvc repro data/comparison/dvc.yaml")
        if found[name].get("made_from", {}).get("images") != images:
            raise MacError(f"{path}: was made from other images than those here; run 'dvc repro data/comparison/dvc.yaml'")
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _inline(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _timings(folder: Path) -> dict[str, dict[str, Any]]:
    """The last run of each stage, in the pipeline's order."""
    order = ("prepare", "train", "saliency", "features", "retrain", "evaluate", "baselines", "sweep")
    files = {name: folder / f"{name}.json" for name in order}
    return {name: store.read_json(file, f"mac {name}") for name, file in files.items() if file.is_file()}
