"""mac doctor says what is there, what is missing, and what the stages will need."""

import json

from tests.conftest import Project


def test_a_project_that_is_well(finished: Project) -> None:
    text = finished.succeed("doctor", "--device", "cpu").stdout
    for word in ("Python: 3", "work together", "HDF5", "device: CPU", "parameters", "dataset", "disk", "features"):
        assert word in text
    found = json.loads(finished.succeed("doctor", "--device", "cpu", "--json").stdout)
    assert {each["state"] for each in found["findings"]} <= {"ok", "warning"}
    needed = {row["stage"]: row for row in found["stages"]}
    for stage, file in (("prepare", "images.h5"), ("features", "features.h5")):
        there = (finished.data / file).stat().st_size
        assert there / 2 < needed[stage]["bytes"] < 2 * there
    assert all(row["seconds"] > 0 for row in needed.values())


def test_what_is_wrong_is_named_and_fails(project: Project) -> None:
    project.set(model__weights="nowhere.safetensors", dataset__root=str(project.folder / "nowhere"))
    result = project.run("doctor", "--device", "cpu")
    assert result.exit_code == 1
    assert "error    weights: nowhere.safetensors; model.weights: no such file" in result.stdout
    assert "error    dataset:" in result.stdout
    assert "nowhere" in result.stdout.partition("error    dataset:")[2]
    project.params_file.write_text("dataset: 3\n")
    result = project.run("doctor", "--device", "cpu")
    assert result.exit_code == 1
    assert "error    project:" in result.stdout
