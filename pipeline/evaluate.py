"""Stage evaluate: ERM and MaC side by side on the test split."""

from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.metrics import Groups
from pipeline.results import tables
from pipeline.results.scores import head_logits, head_scores
from pipeline.results.tables import worst_of

HELD_OUT = ("val", "test")


def evaluate(images_path: Path, features_path: Path, erm_path: Path, retrained_path: Path, metrics_path: Path, plots_path: Path) -> str:
    """Write metrics.json and the folder of plot data; return the table to print.

    The plots' folder has groups.csv, a bar a group and method, and confusion.csv.
    """
    metrics, confusion = measure(images_path, features_path, erm_path, retrained_path)
    store.write_json(metrics_path, metrics)
    with store.create_folder(plots_path) as folder:
        store.write_csv(folder / "groups.csv", _plot_rows(metrics))
        store.write_csv(folder / "confusion.csv", confusion)
    return tables.of_metrics(metrics)


def measure(images_path: Path, features_path: Path, erm_path: Path, retrained_path: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """ERM and MaC on the validation and the test split.

    Returns:
        The metrics: `erm.<split>.<metric>` and `mac.<split>.<metric>.{mean, std}` over the retraining seeds, with the metrics of
        `scores.scores`; `count.<split>.<group>`; `seeds`. And the confusion: a row a test image with its class and the class
        that the chosen MaC head sees in it.
    """
    with store.open_artefact(images_path, "images") as images:
        erm = store.open_model(erm_path, "erm", {"images": images.digest})
        with store.open_artefact(features_path, "features", {"images": images.digest, "erm": erm.digest}) as features:
            retrained = store.open_model(retrained_path, "retrained", {"features": features.digest, "erm": erm.digest})
            groups = Groups.of(images)
            in_training = images["split"][:] == 0
            training = groups.grouping(images["label"][:][in_training], images["attribute"][:][in_training])
            held_out = {split: groups.grouping(features[f"{split}/label"][:], features[f"{split}/attribute"][:]) for split in HELD_OUT}
            seeds = retrained.read("head")
            weight, bias = erm.head()
            heads = {"erm": (weight[None], bias[None]), "mac": (seeds["weight"], seeds["bias"])}
            results = {
                name: {split: head_scores(features, split, *fitted, training) for split in HELD_OUT} for name, fitted in heads.items()
            }
            chosen = head_logits(features["test/original"][:], *retrained.head()).argmax(-1)
            pairs = zip(features["test/label"][:], chosen, strict=True)
            confusion = [{"actual": groups.classes[int(actual)], "predicted": groups.classes[int(seen)]} for actual, seen in pairs]
    metrics = {
        "erm": {split: only_means(results["erm"][split]) for split in HELD_OUT},
        "mac": results["mac"],
        "count": {split: dict(zip(held_out[split].names, held_out[split].count.tolist(), strict=True)) for split in HELD_OUT},
        "seeds": len(seeds["weight"]),
    }
    return metrics, confusion


def only_means(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics of one head, without their spread."""
    return {
        key: (value["mean"] if set(value) == {"mean", "std"} else only_means(value)) if isinstance(value, dict) else value
        for key, value in metrics.items()
    }


def _plot_rows(metrics: dict[str, Any]) -> list[dict[str, object]]:
    """A bar for every group and method: mean test accuracy over seeds, and its standard deviation."""
    rows: list[dict[str, object]] = []
    erm, mac = metrics["erm"]["test"], metrics["mac"]["test"]
    worst, groups = worst_of(erm)
    for group in [*erm[groups], worst]:
        before, after = (erm[group], mac[group]) if group == worst else (erm[groups][group], mac[groups][group])
        for method, accuracy, std in (("ERM", before, 0.0), ("MaC", after["mean"], after["std"])):
            rows.append({"bar": f"{group} ({method})", "group": group, "method": method, "accuracy": accuracy, "std": std})
    return rows
