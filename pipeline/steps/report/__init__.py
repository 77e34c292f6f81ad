"""Stage report: one page that says whether MaC is worth it here (paper Tables 1 and 2, Figures 1 to 4)."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader

from pipeline import store
from pipeline.compute.context import Context
from pipeline.errors import MacError, printable
from pipeline.metrics import SIGNS
from pipeline.project import Opened, Project, read_table
from pipeline.results import diagnosis_table, diagnosis_words, evaluation
from pipeline.results.choice import Choice
from pipeline.results.paired import others
from pipeline.results.tables import worst_of
from pipeline.results.verdict import ERM, Difference, more, points
from pipeline.selection import SPOKEN, SPOKEN_MEAN
from pipeline.steps.evaluate import whole
from pipeline.steps.report import charts, figures
from pipeline.steps.report.charts import Drawing
from pipeline.steps.report.figures import Spoken
from pipeline.steps.report.gallery import OUTCOMES, gallery
from pipeline.steps.report.sweep_map import sweep_map
from pipeline.steps.report.trade_offs import trade_offs

if TYPE_CHECKING:
    from pipeline.params.selection import Criterion

SETTING = ("alpha", "beta", "l2")  # what a row of the sweep's tables is of
PACKAGES = ("mac-robust", "torch", "torchvision", "numpy", "h5py", "scikit-learn", "pillow", "dvc")


def report(given: Opened, out: Path, _context: Context) -> None:
    """Write the page. It includes the results of the second pipeline if they are given.

    Args:
        given: images, erm, masks, features, retrained, baselines, sweep and examples; and all or none of jtt,
            masktune and ablation.

    Raises:
        MacError: a table cannot be read.
    """
    environment = Environment(
        loader=PackageLoader("pipeline.steps.report", "page"),
        autoescape=True,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "inline": _inline,
        "ends": diagnosis_table.ends_of,
        "more": more,
        "points": points,
    }
    store.write_text(out, environment.get_template("page.html").render(_contents(given)))


def _contents(given: Opened) -> dict[str, Any]:
    """The values for the page's template."""
    metrics, confusion = whole(given)
    erm, retrained = given.model("erm"), given.model("retrained")
    baselines = given.metrics("baselines")
    coverage = given.attribute("examples", "coverage")
    choice = Choice.of_retrained(given)
    worst, _ = worst_of(metrics["erm"]["test"])
    pairs = [(row["actual"], row["predicted"]) for row in confusion]
    return {
        "light": charts.variables(dark=False),
        "dark": charts.variables(dark=True),
        "rules": charts.RULES,
        "dataset": given.stated("images", "name"),
        "architecture": erm.spec.architecture,
        "metrics": metrics,
        "verdict": evaluation.verdict_of(metrics),
        **_diagnosis(metrics["diagnosis"]),
        "worst": worst,
        "spoken": worst.replace("_", " "),
        "adjusted": "adjusted_mean" in metrics["erm"]["test"],
        "group_bars": _group_bars(metrics),
        "most": figures.MOST,
        "confusion": figures.confusion(pairs, erm.spec.classes),
        "methods": _methods(given, metrics, choice),
        "left_out": baselines["left_out"],
        "trade_offs": figures.trade_offs(trade_offs(given, baselines["methods"])),
        "compared": "jtt" in given,
        **_ablation(given),
        "table_1": coverage,
        "table_1_mean": _mean_coverage(coverage),
        "choice": choice,
        **_sweep(given, worst.replace("_", " "), choice),
        "learning_curves": figures.learning_curves(
            given.rows_of_csv("erm", "history.csv"), _spoken(given.stated("erm", "selection", "criterion"))
        ),
        **_retraining_curves(given, choice),
        "cards": gallery(given),
        "outcomes": OUTCOMES,
        "artefacts": {
            "images.h5": given.file("images").provenance,
            "erm": erm.provenance,
            "masks.h5": given.file("masks").provenance,
            "features.h5": given.file("features").provenance,
            "retrained": retrained.provenance,
        },
        "versions": _versions(),
        "timings": timings(given.project, "jtt" in given),
    }


def _diagnosis(found: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the method's assumption seems to hold: a table and its words."""
    views, rows, note = {}, {}, ""
    if found["images"]:
        views = {key: name for key, name in diagnosis_table.VIEWS.items() if key in found["all"]}
        rows = diagnosis_table.rows_of(found)
        note = f"{diagnosis_table.VIEWS_NOTE}. {diagnosis_table.basis(found)}."
    return {
        "diagnosis": found,
        "assumption": diagnosis_words.ASSUMPTION[found["side"]],
        "diagnosis_views": views,
        "diagnosis_rows": rows,
        "diagnosis_note": note,
        "diagnosis_blanks": diagnosis_table.blanks(found),
        "diagnosis_said": diagnosis_words.said(found),
    }


def timings(project: Project, compared: bool) -> dict[str, dict[str, Any]]:
    """The last run of each stage, without the reports, in the order of the stages.

    Args:
        compared: whether to include the second pipeline.
    """
    found = {}
    for kind in project.kinds.values():  # in the order of the stages that make them
        file = project.data / "timings" / f"{kind.stage}.json"
        is_report = kind.path.endswith(".html")
        is_compared = kind.path.startswith("comparison/")
        if is_report or (is_compared and not compared) or not file.is_file():
            continue
        found[kind.stage] = read_table(file, "timings", f"{kind.remedy}, or remove the file")
    return found


def _group_bars(metrics: Mapping[str, Any]) -> Drawing:
    erm, mac = metrics["erm"]["test"], metrics["mac"]["test"]
    _, many = worst_of(erm)
    names = list(erm[many])
    lowest = figures.lowest([*erm[many].values()], [mac[many][name]["mean"] for name in names])
    shown = [names[place] for place in lowest]
    return figures.group_bars(shown, [erm[many][name] for name in shown], [mac[many][name] for name in shown])


def _mean_coverage(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """All groups of Table 1 together; None if there are none."""
    total = sum(row["n"] for row in rows)
    if not total:
        return None
    whole: dict[str, Any] = {"group": "all", "n": total}
    for name in ("map_fg", "map_bg", "mask_fg", "mask_bg"):
        whole[name] = sum(row["n"] * row[name] for row in rows) / total
    return whole


def _methods(given: Opened, metrics: Mapping[str, Any], choice: Choice) -> list[dict[str, Any]]:
    """Table 2: ERM first, then MaC, then the others. `less` is MaC minus the method; MaC has none."""
    labels = given.stated("retrained", "labels")
    chosen = {**choice.numbers, "solver": given.stated("retrained", "solver")} if choice.setting else {}
    mac = {
        "title": "MaC",
        "source": "this pipeline",
        "labels": labels,
        "sign": SIGNS[labels],
        "chosen": chosen,
        "note": "" if choice.setting else choice.reason,
        "seeds": metrics["seeds"],
        "test": metrics["mac"]["test"],
        "ours": True,
    }
    rows = others(given, metrics)
    for name, row in rows.items():
        row["less"] = Difference(**metrics["compared"][name])
    first = [rows.pop(ERM)] if ERM in rows else []
    return [*first, mac, *rows.values()]


def _retraining_curves(given: Opened, choice: Choice) -> dict[str, Any]:
    """The figure, or a sentence that says why there is none."""
    why = ""
    if choice.setting is None:
        why = f"{choice.reason}."
    elif given.stated("retrained", "solver") == "lbfgs":
        why = "L-BFGS solves for the head outright: there are no epochs."
    if why:
        return {"retraining_curves": None, "no_curves": why}
    history, spoken = given.rows_of_csv("retrained", "history.csv"), given.stated("retrained", "criterion")
    return {"retraining_curves": figures.retraining_curves(history, _spoken(spoken)), "no_curves": why}


def _sweep(given: Opened, worst: str, choice: Choice) -> dict[str, Any]:
    """What the sweep picked, and its maps; `worst` is what is worst on the test split, in words."""
    table = given.table("sweep")
    spoken = _spoken(table.values["criterion"])
    return {"sweep": table.values, "sweep_map": sweep_map(_sweep_rows(given), spoken, worst, choice)}


def _sweep_rows(given: Opened) -> list[dict[str, Any]]:
    """The rows of sweep/mean.csv, with the accuracies of groups from the same rows of groups.csv.

    Raises:
        MacError: one of the files cannot be read, or they have other settings.
    """
    means, of_groups = (given.rows_of_csv("sweep", f"{name}.csv") for name in ("mean", "groups"))
    if _settings(means) != _settings(of_groups):
        file, remedy = given.project.path("sweep") / "groups.csv", given.project.kinds["sweep"].remedy
        raise MacError(f"{file}: damaged (its settings are not those of mean.csv); {remedy}")
    return [{**groups, **row} for row, groups in zip(means, of_groups, strict=True)]


def _settings(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    return [list(map(row.__getitem__, SETTING)) for row in rows]


def _spoken(criterion: "Criterion") -> Spoken:
    return Spoken(SPOKEN[criterion], SPOKEN_MEAN[criterion])


def _ablation(given: Opened) -> dict[str, Any]:
    """The comparison of masks and its figure; None for both if it is not given."""
    if "ablation" not in given:
        return {"ablation": None, "ablation_figure": None}
    found = given.table("ablation").values
    return {"ablation": found, "ablation_figure": figures.differences(found["differences"])}


def _percent(value: float) -> str:
    return f"{100 * value:.1f}".replace("-", "−")


def _visible(value: object) -> object:
    """Text for the page without marks that would turn the direction of writing, and the like."""
    return printable(value, kept="\n") if type(value) is str else value


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
