"""Groups whose names would be one with the usual separator have names of their own in every output."""

import csv
import json
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from pipeline import graph
from pipeline.compute.context import Context
from pipeline.errors import MacError
from pipeline.metrics import UNKNOWN, Groups
from pipeline.params.examples import ExamplesParams
from pipeline.steps.evaluate import evaluate
from pipeline.steps.examples import examples
from pipeline.steps.report import report
from pipeline.tools.browse import browse
from pipeline.tools.inspection import describe
from tests import made_up

NAMES = ["a / b_c", "a / c", "a_b / b_c", "a_b / c"]


def test_four_groups_have_four_names_in_every_output(tmp_path: Path) -> None:
    spec = replace(made_up.SPEC, classes=("a", "a_b"), attributes=("b_c", "c"))
    project = made_up.write(tmp_path, spec=spec)
    context = Context("cpu", project.data / "scratch")
    with project.open(*graph.stage("evaluate").needs) as given:
        evaluate(given, project.path("metrics"), project.path("plots"), context)
    metrics = json.loads(project.path("metrics").read_text())
    for head in ("erm", "mac"):
        assert list(metrics[head]["test"]["groups"]) == NAMES
    assert metrics["count"]["test"] == dict.fromkeys(NAMES, made_up.EACH[2])
    rows = list(csv.DictReader((project.path("plots") / "groups.csv").read_text().splitlines()))
    assert {row["group"] for row in rows} == {"worst_group", *NAMES}
    inspected = describe(project.path("images")).splitlines()
    counts = [[name, *map(str, made_up.EACH)] for name in NAMES]
    assert [[line[:24].strip(), *line[24:].split()] for line in inspected[-5:-1]] == counts
    table = browse(project.path("masks"), coverage=False)
    assert {name: int((table.group == name).sum()) for name in NAMES} == dict.fromkeys(NAMES, made_up.EACH[0])
    with project.open(*graph.stage("examples").needs) as given:
        examples(given, project.path("examples"), ExamplesParams(training=4, mistakes=2, seed=0), context)
    with project.open(*graph.stage("report").needs) as given:
        report(given, project.path("report"), context)
    page = project.path("report").read_text()
    assert not [name for name in NAMES if name not in page]


@pytest.mark.parametrize(
    ("classes", "attributes", "separator"),
    [
        (("landbird", "waterbird"), ("land", "water"), "_"),
        (("a_b", "a"), ("x", "y"), "_"),
        (("a", "a_b"), ("c", "b_c"), " / "),
        (("a", "a_unknown"), ("x", "unknown_x"), " / "),
        (("worst", "best"), ("group", "x"), " / "),
        (("a", "a_b"), ("b_unknown", "x"), " / "),
        (("a", "a_b", "a / b"), ("c", "b_c", "b / c"), " | "),
    ],
)
def test_the_separator_is_the_first_that_keeps_names_apart(
    classes: tuple[str, ...], attributes: tuple[str, ...], separator: str
) -> None:
    groups = Groups(classes, attributes)
    assert groups.names == [separator.join(pair) for pair in product(classes, attributes)]
    described = groups.described(np.array([0, 1]), np.array([0, UNKNOWN]))
    assert described.names == [separator.join(pair) for pair in product(classes, (*attributes, "unknown"))]
    assert [described.names[index] for index in described.index] == [
        separator.join((classes[0], attributes[0])),
        separator.join((classes[1], "unknown")),
    ]
    assert all(one != other for one, other in combinations(described.names, 2))


def test_names_that_no_separator_keeps_apart_are_refused() -> None:
    classes = ("a", *(f"a{separator}b" for separator in ("_", " / ", " | ")))
    attributes = ("c", *(f"b{separator}c" for separator in ("_", " / ", " | ")))
    with pytest.raises(MacError, match="two groups would have one name .*; rename a class or an attribute"):
        _ = Groups(classes, attributes).names
