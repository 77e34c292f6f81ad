"""study.json as text: what `mac study` and `mac inspect` print."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.results.choice import said
from pipeline.results.verdict import more, points
from pipeline.study.names import OF_MASKS
from pipeline.study.statistics import MOST_RUNS

_NONE = "–"
_DIAGNOSES = {
    "holds": "nothing speaks against the method's assumption",
    "doubtful": "the method's assumption is doubtful",
    "fails": "the method's assumption fails",
    "unknown": "nothing can be said of the method's assumption",
}
_OTHERS = {"auroc": "AUROC", "ece": "ECE"}


def of_study(found: Mapping[str, Any]) -> str:
    """The results of every variant, in percent and points, and the verdict on each.

    Args:
        found: study.json.
    """
    parts = []
    for name, variant in found["variants"].items():
        parts.append("\n".join(_of_variant(name, variant)))
    return "\n\n".join(parts)


def _of_variant(name: str, variant: Mapping[str, Any]) -> Iterator[str]:
    seeds, key, methods = variant["seeds"], variant["worst"], variant["methods"]
    runs, worst = len(seeds), key.replace("_", " ")
    changed = ", ".join(f"{dotted}: {value}" for dotted, value in variant["changes"].items())
    yield f"{name}{f' ({changed})' if changed else ''}: {_listed(seeds)}"
    in_all = set.intersection(*(set(row) for row in methods.values()))
    others = [each for each in _OTHERS if each in in_all]
    width = max(len(row["title"]) for row in methods.values()) + 2
    head = f"{f'test {worst}, %':<{width}}{'mean':>7}{'± sd':>7}{'lowest':>8}{'highest':>9}{'95 %':>16}"
    head += f"{'mean acc.':>11}"
    yield head + "".join(f"{_OTHERS[each]:>8}" for each in others) + "  group labels seen"
    for row in methods.values():
        found = row[key]
        cells = f"{_percent(found['mean']):>7}{_percent(found['std']):>7}{_percent(found['lowest']):>8}"
        cells += f"{_percent(found['highest']):>9}{_interval(found['low'], found['high']):>16}"
        cells += f"{_percent(row['raw_mean']['mean']):>11}"
        cells += "".join(f"{_percent(row[each]['mean']):>8}" for each in others)
        yield f"{row['title']:<{width}}{cells}  {row['sign']} {row['labels']}"
    yield ""
    yield from _differences(variant, worst)
    for left in variant["not_in_all"].values():
        why = f" ({'; '.join(left['reasons'])})" if left["reasons"] else ""
        yield f"{left['title']}: in {left['runs']} of {runs} runs, so not compared{why}"
    criteria = dict.fromkeys(each["criterion"] for each in variant["settings"])
    chosen = _tallied([said(each) for each in variant["settings"]])
    yield f"MaC: {chosen}; selection.criterion: {', '.join(criteria)}"
    if variant["coverage"]:
        inside, outside = (100 * variant["coverage"][part] for part in ("mask_fg", "mask_bg"))
        yield f"masks cover {inside:.1f} % of the true foregrounds and {outside:.1f} % of the rest"
    diagnoses = variant["diagnoses"]
    yield f"diagnosis: {_tallied([_DIAGNOSES[each['verdict']] for each in diagnoses])}"
    if early := sum(each["stopped_early"] for each in diagnoses):
        yield f"ERM was stopped early in {early} of {runs}, which flatters all that fit its last layer anew"
    yield from _notes(runs, variant["images"])
    if not OF_MASKS.keys().isdisjoint(methods):
        yield "MaC's, random and true masks: MaC with these, α and β picked in the same way for each"
    yield ""
    yield variant["verdict"]


def _differences(variant: Mapping[str, Any], worst: str) -> Iterator[str]:
    names = []
    for row in variant["differences"]:
        names.append(" − ".join(variant["methods"][row[end]]["title"] for end in ("of", "than")))
    width = max(len(name) for name in names) + 2
    columns = (
        f"{'mean':>7}{'± sd':>7}{'95 %':>16}{'95 % (t)':>16}{'p (t)':>8}{'Holm':>7}{'p (W)':>8}{'Holm':>7}"
    )
    yield f"{f'difference, points of the {worst}':<{width}}{columns}{'g':>7}{'runs needed':>13}"
    for name, row in zip(names, variant["differences"], strict=True):
        cells = f"{more(row['mean']):>7}{_percent(row['std']):>7}"
        cells += f"{_interval(row['low'], row['high']):>16}{_interval(row['t_low'], row['t_high']):>16}"
        cells += f"{_chance(row['t_p']):>8}{_chance(row['t_p_holm']):>7}"
        cells += f"{_chance(row['wilcoxon_p']):>8}{_chance(row['wilcoxon_p_holm']):>7}"
        g, needed = _NONE, _NONE
        if row["g_z"] is not None:
            g, needed = f"{row['g_z']:+.2f}".replace("-", "−"), str(row["runs_needed"] or f">{MOST_RUNS}")
        yield f"{name:<{width}}{cells}{g:>7}{needed:>13}"


def _notes(runs: int, images: int) -> Iterator[str]:
    if runs == 1:
        yield f"95 %: over {images} test images, for this ERM run; nothing is said of other runs"
        return
    yield f"95 %: over ERM runs and {images} test images; 95 % (t): over ERM runs alone, on these images"
    yield "p: paired t test, and Wilcoxon's signed ranks (W), over ERM runs; Holm: corrected for all rows"
    yield "g: mean / sd of the difference, corrected"
    yield "runs needed: ERM runs for power .8 of the t test at .05, two-sided, on these test images"


def _listed(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return f"1 ERM run, seed {seeds[0]}"
    named = ", ".join(map(str, seeds))
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        named = f"{seeds[0]} to {seeds[-1]}"
    return f"{len(seeds)} ERM runs, seeds {named}"


def _tallied(verdicts: list[str]) -> str:
    """How often each was found: `ERM as it is in 4 of 5; α = 2, β = 2 in 1 of 5`."""
    counts = {each: verdicts.count(each) for each in dict.fromkeys(verdicts)}
    return "; ".join(f"{each} in {count} of {len(verdicts)}" for each, count in counts.items())


def _percent(value: float | None) -> str:
    return _NONE if value is None else points(value)


def _interval(low: float | None, high: float | None) -> str:
    return _NONE if low is None or high is None else f"{points(low)} to {points(high)}"


def _chance(value: float | None) -> str:
    if value is None:
        return _NONE
    return "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")
