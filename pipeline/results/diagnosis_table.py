"""The diagnosis as text: the table that `mac diagnose`, stage evaluate and the report show."""

from collections.abc import Mapping
from typing import Any

from pipeline.results import diagnosis_words

# What a diagnosis measures, and how it is named in a table.
VIEWS = {
    "original": "original",
    "core": "core only",
    "rest": "rest only",
    "same": "same class",
    "own": "own class",
    "partner": "partner's",
    "neither": "neither",
    "swayed": "swayed",
    "dependence": "dependence",
}
VIEWS_NOTE = (
    "same class: right about the core on a training image's background of its class; "
    "own class, partner's, neither: what ERM says of the core on one of another class; "
    "swayed: right about the image, wrong about that; dependence: same class minus own class"
)
_MANY = 12  # classes; of more, not all are named in a line


def table(found: Mapping[str, Any]) -> str:
    """The diagnosis as text: ERM's answers on views of the validation images, in percent, and the verdict."""
    lines = []
    if found["images"]:
        views = {key: name for key, name in VIEWS.items() if key in found["all"]}
        titles = "".join(f"{name:>12}" for name in views.values())
        lines.append(f"{'ERM on validation, %':<24}{'n':>6}{titles}")
        for name, row in rows_of(found).items():
            values = "".join(f"{100 * row[key]:>12.1f}" for key in views)
            ends = "".join(f"{ends_of(row, key):>12}" for key in views)
            lines += [f"{name:<24}{row.get('images', found['images']):>6}{values}", f"{'':<30}{ends}"]
        lines += [VIEWS_NOTE, basis(found)]
    return "\n".join([*lines, *blanks(found), "", in_words(found)])


def rows_of(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rows of the diagnosis' table, by name."""
    return {"all": found["all"], "classes alike": found["balanced"], **found["classes"]}


def basis(found: Mapping[str, Any]) -> str:
    """What the diagnosis' intervals are over."""
    draws = "one draw" if found["draws"] == 1 else f"the mean of {found['draws']} draws"
    return f"95 % intervals over validation images like these {found['images']}; one run of ERM, {draws}"


def blanks(found: Mapping[str, Any]) -> list[str]:
    """How many maps are blank, a line for each split; of many classes, the few that have the most."""
    lines = []
    for split, of_split in found["blank"].items():
        counts, which = {name: each["count"] for name, each in of_split["classes"].items()}, ""
        if len(counts) > _MANY:
            counts = dict(sorted(counts.items(), key=lambda item: -item[1])[:3])
            which = "most: "
        by_class = ", ".join(f"{name} {count}" for name, count in counts.items())
        said = f"{of_split['count']} ({100 * of_split['share']:.1f} %); {which}{by_class}"
        lines.append(f"blank maps, {split}: {said}")
    return lines


def ends_of(row: Mapping[str, Any], key: str) -> str:
    """The ends of the interval of a share, in percent."""
    interval = row[f"{key}_interval"]
    return f"{100 * interval['low']:.1f}–{100 * interval['high']:.1f}".replace("-", "−")


def in_words(diagnosis: Mapping[str, Any]) -> str:
    """All that is said of a diagnosis, in lines."""
    return "\n".join(diagnosis_words.said(diagnosis))
