"""MODEL_CARD.md: an exported classifier's input and output, how it was made, and how good it is."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.errors import printable
from pipeline.project import Opened
from pipeline.results import diagnosis_words, evaluation, tables
from pipeline.results.calibration import Calibration, Limit
from pipeline.results.early_stop import early
from pipeline.spec import ModelSpec
from pipeline.steps.evaluate import measure, whole
from pipeline.tools.heads import ERM, MAC, NamedHead

_STORED = {"squash": "scaled", "center_crop": "the largest square in the middle, scaled"}
_INPUT = {"center_crop": "the middle", "resize": "scaled to"}
_LABELS = {
    "none": "It sees no group labels.",
    "validation, to choose": "The group labels of the validation split served to choose settings alone.",
    "validation, to train": "It is trained on the group labels of the validation split.",
    "training, to train": "It is trained on the group labels of the training split.",
}


def needs(name: str) -> tuple[str, ...]:
    """The artefacts that the card of a head needs besides images, erm and the artefact with the head."""
    measured = ("features", "retrained")
    return {ERM: measured, MAC: (*measured, "masks", "baselines")}.get(name, ())


def card(
    given: Opened,
    head: NamedHead,
    file: str,
    form: str,
    compared: str,
    calibration: Calibration | None = None,
) -> str:
    """The model card, as Markdown.

    Args:
        given: images, erm, the artefact with the head, and those of `needs`; features if it is calibrated.
        file: name of the exported file.
        form: the file's format, in words.
        compared: a sentence about the comparison of the file with PyTorch.
        calibration: of the head, if it is calibrated.

    Raises:
        MacError: metrics.json of baselines is damaged.
    """
    spec, dataset = given.model("erm").spec, given.stated("images", "name")
    metrics = _measured(given, head)
    test = given.grouping("test")
    counts = [f"{_code(name)} {n}" for name, n in zip(test.names, test.count, strict=True)]
    lines = [
        f"# {_code(file)}",
        "",
        f"A {_code(spec.architecture)} that tells {_listed(spec.classes)} apart ({form}).",
        "",
        "## Input and output",
        "",
        *_input_and_output(spec),
        "",
        compared,
        "",
        "## Data",
        "",
        f"Dataset {_code(dataset)}; {len(test.index)} test images: {', '.join(counts)}.",
        f"Spurious attribute: {_listed(spec.attributes) if spec.attributes else 'none is known'}.",
        "",
        "## Method",
        "",
        *_method(given, head, "classifier" in given.model("erm").provenance.made_from, metrics),
        "",
        "## Results",
        "",
        *_results(given, head, metrics),
        "",
        *(_calibration(given, head, calibration) if calibration else ()),
        "## Limits",
        "",
        "- The figures hold for images like those of the test split.",
        "- Groups that are rare in the test split are known less well.",
        "- The backbone is ERM's: what it cannot tell apart, no last layer can.",
        "- An image of another class is given one of the classes' names all the same.",
        "",
        f"Model digest: {_code(head.digest)}",
        "",
    ]
    return "\n".join(lines)


def _input_and_output(spec: ModelSpec) -> Iterator[str]:
    size, stored = spec.input_size, spec.stored_size
    yield f"- Input `image`: (N, 3, {size}, {size}) float32. An RGB image is made into it in three steps:"
    scaled = f"{spec.interpolation}, antialiased"
    yield f"    1. {_STORED[spec.to_stored]} to {stored} × {stored} pixels ({scaled});"
    yield f"    2. {_INPUT[spec.to_input]} {size} × {size} pixels;"
    mean, std = spec.normalization.mean, spec.normalization.std
    yield f"    3. divided by 255, minus {_numbers(mean)}, divided by {_numbers(std)} (red, green, blue)."
    white = "what its file declares, else 65535," if spec.range == "auto" else f"{spec.range:g}"
    yield f"- Grey of more than 8 bits is scaled to 8 bits before: {white} is white."
    yield f"- Output `logits`: (N, {len(spec.classes)}), in the order {_listed(spec.classes)}."


_UNKNOWN = "How the user's network was trained is not known, nor which labels it saw."


def _measured(given: Opened, head: NamedHead) -> dict[str, Any]:
    """What metrics.json of evaluate has: all of it for MaC, what is measured for ERM; nothing for others."""
    if head.name == MAC:
        return whole(given)[0]
    return measure(given)[0] if head.name == ERM else {}


def _method(given: Opened, head: NamedHead, own: bool, metrics: Mapping[str, Any]) -> Iterator[str]:
    """How the head and its network were made; `own`: the network was trained elsewhere."""
    network = "the network of the user's own classifier (ERM)" if own else "a network trained as usual (ERM)"
    if head.name == ERM:
        if own:
            yield "The user's own classifier, in the place of ERM. Nothing was trained."
            yield _UNKNOWN
            return
        yield "Empirical risk minimisation (ERM): trained as usual, with no defence against"
        yield "spurious correlations."
        if head.labels != "none":
            yield "The group labels of the validation split served to choose the epoch."
        return
    if head.name == MAC:
        yield (
            "MaC (Hosseini Noohdani et al., *Mitigating Spurious Correlation in Images by Intervention*): "
            f"{network}. {_retrained(head)}"
        )
        yield f"{_prose(head.note[0].upper() + head.note[1:])}."
        yield diagnosis_words.sentence(metrics["diagnosis"])
        yield from filter(None, [early(metrics["diagnosis"])])
    else:
        who = f"{_prose(head.title)} ({_prose(head.source)})"
        yield f"{who}: {network}, its last layer fitted anew."
        if head.chosen:
            chosen = [_prose(f"{name} {value}") for name, value in head.chosen.items()]
            yield f"The validation split chose {', '.join(chosen)}."
        if head.note:
            yield f"Note: {_prose(head.note)}."
    if own:
        yield f"The head: {_LABELS[head.labels]} {_UNKNOWN}"
    else:
        yield _LABELS[head.labels]


def _retrained(head: NamedHead) -> str:
    """What MaC made of the last layer."""
    if not head.chosen:
        return "Its last layer is not retrained."
    alpha, beta, l2 = head.chosen["alpha"], head.chosen["beta"], head.chosen.get("l2")
    penalty = "" if l2 is None else f", with an L2 penalty of the strength l2 = {l2:g}"
    return (
        f"Its last layer is retrained on the training images, on their cores alone (α = {alpha:g}), "
        f"and on their cores over backgrounds of other classes (β = {beta:g}){penalty}."
    )


def _results(given: Opened, head: NamedHead, metrics: Mapping[str, Any]) -> Iterator[str]:
    if metrics:
        if head.name == MAC:
            yield from (_prose(str(evaluation.verdict_of(metrics))), "")
        yield "ERM and MaC on the test split:"
        yield from ("", _block(tables.of_metrics(metrics)))
    else:
        yield f"{_prose(head.title)} on the test split:"
        yield from ("", _block(_table(given, head)))
    if head.count > 1:
        yield ""
        yield f"The file holds one of the {head.count} heads: the one that the validation split prefers."


def _calibration(given: Opened, head: NamedHead, found: Calibration) -> Iterator[str]:
    """The section about the temperature: how it was found, what it does, and what it holds for."""
    val = given.grouping("val")
    counts = [f"{_code(name)} {n}" for name, n in zip(val.names, val.count, strict=True)]
    yield from ("## Calibration", "")
    yield "Temperature scaling (Guo et al. 2017): the last layer's weight and bias are divided by"
    yield f"T = {found.temperature:.4g}. {_LIMITS[found.limit]} No group label served for it."
    yield f"The {len(val.index)} validation images: {', '.join(counts)}."
    yield "The probabilities fit images like these. If classes or groups are mixed otherwise, they need not."
    if head.labels == "validation, to train":
        yield "The head itself was trained on validation images, so it is surer of them than of others."
    yield "No answer changes. The figures under Results are those of heads that are not calibrated."
    yield ""
    before, after = found.before, found.after
    lines = [
        f"{'this head on the test split':<34}{'before':>9}{'after':>9}",
        f"{'calibration error (ECE), %':<34}{100 * before.ece:>9.2f}{100 * after.ece:>9.2f}",
        f"{'negative log-likelihood, nats':<34}{before.nll:>9.4f}{after.nll:>9.4f}",
    ]
    yield from (_block("\n".join(lines)), "")


_LIMITS: dict[Limit, str] = {
    "none": "It minimises the negative log-likelihood of the validation split.",
    "all right": (
        "The head is right about all validation images, so they set no lower limit to T. With n images, "
        "it is such that their mean confidence is (n + 1) / (n + 2)."
    ),
    "bound": "It is at a bound of the search: the validation split does not determine it. Do not trust it.",
}


def _table(given: Opened, head: NamedHead) -> str:
    """The methods' table with ERM and this method, and the accuracy by group of this method."""
    found = given.metrics("baselines")["methods"]
    methods = {name: row for name, row in found.items() if name in (ERM, head.name)}
    lines = [tables.of_baselines({"methods": methods, "left_out": {}}), ""]
    test: dict[str, Any] = methods[head.name]["test"]
    _, many = tables.worst_of(test)
    lines += [f"{name:<24}{100 * accuracy['mean']:>16.2f}" for name, accuracy in test[many].items()]
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(_code(name) for name in names)


def _prose(text: str) -> str:
    """Any text as a part of a line of Markdown, in which nothing is markup or HTML."""
    return re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", printable(text))


def _code(text: str) -> str:
    """Any text as a code span of Markdown, in which nothing is markup or HTML."""
    text = printable(text)
    fence = "`" * (_longest_ticks(text) + 1)
    blank = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{blank}{text}{blank}{fence}"


def _block(text: str) -> str:
    """Any text as a code block of Markdown."""
    fence = "`" * max(3, _longest_ticks(text) + 1)
    return "\n".join((fence, printable(text, kept="\n"), fence))


def _longest_ticks(text: str) -> int:
    return max((len(ticks) for ticks in re.findall("`+", text)), default=0)


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
