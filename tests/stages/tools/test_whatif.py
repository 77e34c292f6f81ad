"""mac whatif says what stage retrain would give, and leaves everything as it is."""

import json
import re
import shlex
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import project
from pipeline.tools.whatif import table
from tests.conftest import Project, default_params
from tests.readme import commands


@pytest.fixture
def mac(own_artefacts: project.Project) -> Project:
    """The made-up project, with a params.yaml that fits few heads."""
    made = Project(own_artefacts.data.parent)
    YAML(typ="safe").dump(default_params(), made.params_file)
    made.set(retrain__seeds=2, retrain__average=1, retrain__epochs=2)
    return made


def contents(mac: Project) -> dict[Path, bytes]:
    """All files but the notes of what was checked."""
    return {path: path.read_bytes() for path in mac.folder.rglob("[!.]*") if path.is_file()}


def test_it_says_what_retrain_would_give(mac: Project) -> None:
    before = contents(mac)
    command = shlex.split(commands("mac whatif"))[1:]
    text, found = mac.succeed(*command).stdout, json.loads(mac.succeed(*command, "--json").stdout)
    assert contents(mac) == before
    settings = [(each["alpha"], each["beta"], each["l2"]) for each in found["heads"]]
    assert settings == [(1.0, 30.0, 0.0), (2.0, 30.0, 0.0)]
    mac.set(retrain__alpha=2, retrain__beta=30)
    mac.succeed("retrain")
    mac.succeed("evaluate")
    metrics = json.loads((mac.data / "metrics.json").read_text())
    for split in ("val", "test"):
        assert found["count"][split] == metrics["count"][split]
        mine = found["heads"][1][split]
        assert mine == {key: metrics["mac"][split][key] for key in mine}
        assert {key: value["mean"] for key, value in found["erm"][split].items() if key != "groups"} == {
            key: metrics["erm"][split][key] for key in ("worst_group", "raw_mean")
        }
    title, _, mean, *_ = text.partition("\n\n")[2].splitlines()
    assert title.split("  ")[-1].strip() == "α 2, β 30"
    means = [each["test"]["raw_mean"]["mean"] for each in (found["erm"], *found["heads"])]
    assert re.findall(r"(\d+\.\d)(?: ± \d+\.\d)?", mean) == [f"{100 * each:.1f}" for each in means]


def test_columns_have_the_width_of_what_is_in_them() -> None:
    scores = {"groups": {"a landbird": {"mean": 1.0, "std": 0.0}}}
    scores |= {key: {"mean": 0.5, "std": 0.125} for key in ("worst_group", "raw_mean")}
    measured = {"val": scores, "test": scores}
    heads = [{"alpha": alpha, "beta": 1 / 3, "seeds": 2, **measured} for alpha in (0.125, 0.0625)]
    count = {split: {"a landbird": 1234567} for split in ("val", "test")}
    title, worst, _, group, *_ = table({"count": count, "erm": measured, "heads": heads}).splitlines()
    assert title.split("  ")[-2:] == ["α 0.125, β 0.333333", "α 0.0625, β 0.333333"]
    assert re.split("  +", worst) == ["worst group", "1234567", *["50.0 ± 12.5"] * 3]
    assert re.split("  +", group) == ["a landbird", "1234567", *["100.0"] * 3]
    assert len(title) == len(worst) == len(group)


def test_an_l2_that_is_auto_has_no_number(mac: Project) -> None:
    mac.set(retrain__alpha="auto", retrain__beta="auto", retrain__l2="auto")
    result = mac.run("whatif", "--alpha", "1", "--beta", "2")
    assert result.exit_code == 2
    assert "retrain.l2 is auto: give --l2, a number, too" in result.stderr
    assert "α 1, β 2" in mac.succeed("whatif", *["--alpha", "1", "--beta", "2", "--l2", "0.3"]).stdout


def test_it_names_what_is_missing(mac: Project) -> None:
    (mac.data / "features.h5").unlink()
    assert "features.h5: no such file; run 'mac features'" in mac.fail(
        "whatif", *["--alpha", "1", "--beta", "2"]
    )
