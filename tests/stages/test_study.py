"""mac study-run and mac study on a very small project."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from pipeline import graph
from pipeline.graph import Stage
from pipeline.params_file import Params
from stages import frame, study
from tests import made_up
from tests.conftest import Project, default_params

VARIANTS = {"base": {}, "control": {"saliency.method": "random"}}
BEFORE = ["saliency", "masks", "originals", "features", "sweep", "retrain", "baselines"]


def write(folder: Path) -> Project:
    """Only images.h5 and params.yaml."""
    source = made_up.write(folder / "made", foregrounds=False)
    (folder / "data").mkdir()
    source.path("images").rename(folder / "data" / "images.h5")
    shutil.rmtree(folder / "made")
    project = Project(folder)
    YAML(typ="safe").dump(default_params(), project.params_file)
    project.set(
        dataset__stored_size=72, dataset__input_size=64,
        model__architecture="squeezenet1_1", model__weights="none",
        train__epochs=1, train__batch_size=16, train__precision="float32",
        saliency__most_constant=1.0, saliency__previews=0, features__draws=1, features__batch_size=16,
        retrain__seeds=2, retrain__average=1, retrain__epochs=2,
        sweep__alphas=[0], sweep__betas=[0, 2], sweep__seeds=1, baselines__methods=["erm", "llr"],
        study__seeds=[3], study__variants={"base": {}},
    )  # fmt: skip
    return project


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


class Recorded:
    """The stages that run, and what is made to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.fails = ""
        plain = frame.run

        def run(stage: Stage, *arguments: Any, **others: Any) -> str | None:
            self.names.append(stage.name)
            if stage.name == self.fails:
                raise KeyboardInterrupt
            return plain(stage, *arguments, **others)

        monkeypatch.setattr(frame, "run", run)


def test_a_run_goes_on_where_it_was_with_the_erm_of_study_train_and_is_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, ran = write(tmp_path), Recorded(monkeypatch)
    cell = ("--variant", "base", "--seed", "3")
    erm, run = (project.data / "study" / name / "base" / "3" for name in ("erm", "runs"))
    assert f"{erm}/model.json: no such file; run 'mac study-train --variant base --seed 3'" in (
        project.fail("study-run", *cell)
    )
    project.succeed("study-train", *cell)
    assert ran.names == ["study-train"]
    trained, ran.names, ran.fails = contents(erm), [], "sweep"
    assert project.run("study-run", *cell).exit_code == 130
    assert ran.names == BEFORE[:5]
    assert not run.exists()
    ran.names, ran.fails = [], ""
    # What no run reads, or what changes nothing of it.
    project.set(saliency__previews=3, jtt__epochs=9, train__seed=9, retrain__memory="streamed")
    project.succeed("study-run", *cell)
    assert ran.names == [*BEFORE[4:], "study-run"]
    assert contents(erm) == trained
    assert not any((project.data / "scratch").iterdir())
    assert {path.name for path in project.data.iterdir()} == {
        ".images.h5.verified",
        "images.h5",
        "scratch",
        "study",
        "timings",
    }
    times = json.loads((project.data / "timings/study-run/base/3.json").read_text())
    assert list(times) == [*BEFORE, "study-run"]

    about = json.loads((run / "model.json").read_text())["params"]
    assert about["retrain"]["epochs"] == 2
    assert about["study"] == {"threads": 1}
    assert not {"seed", "previews"} & (about["train"].keys() | about["saliency"].keys())
    metrics = json.loads((run / "metrics.json").read_text())
    of_base = metrics["methods"]
    assert list(of_base) == ["erm", "mac", "llr", "masks_own", "masks_random"]
    with graph.project(project.data, run=run, erm=erm).open("run", "images", "erm") as given:
        heads, answers = given.model("run").read(), given.model("run").read("answers")
        assert heads["mac.weight"].shape[0] == answers["mac"].shape[0] == of_base["mac"]["seeds"]
        assert (heads["erm.weight"][0] == given.model("erm").head().weight[0]).all()
        right = answers["mac"] == given.model("run").read("test")["label"]
    assert right.mean() == pytest.approx(of_base["mac"]["test"]["raw_mean"]["mean"])

    said = project.succeed("study").output
    assert "base: 1 ERM run, seed 3" in said
    worst = json.loads((project.data / "study/study.json").read_text())["variants"]["base"]["methods"]["mac"]
    assert worst["worst_group"]["runs"][0] == of_base["mac"]["test"]["worst_group"]["mean"]

    project.set(study__threads=2)
    assert "base/3: was made with other study.threads (1) than params.yaml has (2); run 'mac study-train" in (
        project.fail("study-run", *cell)
    )
    project.set(study__threads=1)
    project.set(retrain__beta=1)
    assert "base/3: was made with other retrain.beta (" in project.fail("study")
    project.set(train__epochs=2)
    assert "base/3: was made with other train.epochs (1) than params.yaml has (2); run 'mac study-train" in (
        project.fail("study-run", *cell)
    )


def test_a_run_has_the_threads_of_its_parameter_whatever_the_environment_says(tmp_path: Path) -> None:
    project, weights = write(tmp_path), {}
    for before, threads in ((1, 1), (2, 1), (1, 2)):
        project.set(study__threads=threads)
        torch.set_num_threads(before)
        try:
            study.run(graph.stage("study-train"), project.data, project.params_file, "base", 3)
            assert torch.get_num_threads() == before
        finally:
            torch.set_num_threads(1)
        erm = project.data / "study/erm/base/3"
        weights[before, threads] = (erm / "model.safetensors").read_bytes()
        assert json.loads((erm / "model.json").read_text())["params"]["study"] == {"threads": threads}
        times = json.loads((project.data / "timings/study-train/base/3.json").read_text())
        assert times["study-train"]["threads"] == threads
    assert weights[1, 1] == weights[2, 1] != weights[1, 2]


def test_a_variant_with_its_own_images_prepares_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path)
    YAML(typ="safe").dump(default_params(), project.params_file)
    project.set(study__variants={"large": {"dataset.stored_size": 300}}, study__seeds=[7])
    seen: list[tuple[str, dict[str, Path]]] = []

    def run(
        stage: Stage, _data: Path, params: Params, *_: Any, elsewhere: dict[str, Path], threads: int
    ) -> str:
        assert threads == params.values["study"]["threads"] == 1
        seen.append((stage.name, elsewhere))
        assert params.values["dataset"]["stored_size"] == 300
        assert [params.values[block]["seed"] for block in ("train", "saliency", "features")] == [7, 7, 7]
        return "done"

    monkeypatch.setattr(frame, "run", run)
    monkeypatch.setattr(study, "_trained", lambda *_: "digest")
    project.succeed("study-train", "--variant", "large", "--seed", "7")
    assert [name for name, _ in seen] == ["prepare", "study-train"]
    assert all(elsewhere.keys() == {"study_erm"} for _, elsewhere in seen)
    seen.clear()
    project.succeed("study-run", "--variant", "large", "--seed", "7")
    assert [name for name, _ in seen] == ["prepare", *BEFORE, "study-run"]
    assert all(elsewhere.keys() == {"run", "erm"} for _, elsewhere in seen)


def test_work_with_other_weights_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, project = tmp_path / "weights.pth", Project(tmp_path)
    YAML(typ="safe").dump(default_params(), project.params_file)
    project.set(study__seeds=[0], model__weights=str(weights), study__variants={"a": {"dataset.range": 9}})
    ran = Recorded(monkeypatch)
    ran.fails = "prepare"
    for content in (b"some", b"some", b"other"):
        weights.write_bytes(content)
        assert project.run("study-train", "--variant", "a", "--seed", "0").exit_code == 130
    assert len(list((project.data / "scratch").iterdir())) == 2


@pytest.mark.parametrize(
    ("variant", "seed", "said"),
    [
        ("bace", "0", "study.variants: has no 'bace', but base, control"),
        ("base", "1", "study.seeds: has no 1, but 0, 3"),
        ("base", "0", "images.h5: no such file; run 'mac prepare'"),
    ],
)
def test_a_run_that_there_is_not_is_one_line(tmp_path: Path, variant: str, seed: str, said: str) -> None:
    project = Project(tmp_path)
    YAML(typ="safe").dump(default_params(), project.params_file)
    project.set(study__variants=VARIANTS, study__seeds=[0, 3])
    assert said in project.fail("study-train", "--variant", variant, "--seed", seed)
