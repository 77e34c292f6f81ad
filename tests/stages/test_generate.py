"""What is made from the list of stages is up to date, and says what each stage uses."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from dvc.stage import PipelineStage
from ruamel.yaml import YAML

from pipeline import graph
from pipeline.graph import KINDS, STAGES, Stage
from pipeline.params.study import OF_RUN
from stages.code import modules
from stages.dvc_files import FILES as DVC_FILES
from stages.generate import FILES
from tests.conftest import REPOSITORY, default_params


@pytest.mark.parametrize("file", FILES)
def test_what_is_generated_is_up_to_date(file: str) -> None:
    assert (REPOSITORY / file).read_text(encoding="utf-8") == FILES[file](), "run 'make generated'"


def dvc_stage(stage: Stage) -> dict[str, Any]:
    stages = YAML(typ="safe").load(REPOSITORY / DVC_FILES[stage.pipeline])["stages"]
    return stages[stage.name]  # type: ignore[no-any-return]


ONCE = [stage for stage in STAGES if not stage.repeated]


def test_dvc_has_stages_for_each_run_of_the_study(tmp_path: Path) -> None:
    """What each depends on is what its stages depend on, but for what makes images.h5 and what a run sets."""
    params = default_params()
    Repo.init(str(tmp_path), no_scm=True).close()
    params["study"] |= {"seeds": [0, 5], "variants": {"base": {}, "k20": {"saliency.top_k": 0.2}}}
    YAML(typ="safe").dump(params, tmp_path / "params.yaml")
    (tmp_path / "data/study").mkdir(parents=True)
    shutil.copy(REPOSITORY / DVC_FILES["study"], tmp_path / "data/study")
    found = Repo(str(tmp_path)).stage.collect(str(tmp_path / DVC_FILES["study"]))
    stages = {stage.name: stage for stage in found}
    cells = [f"@{variant}-{seed}" for variant in ("base", "k20") for seed in (0, 5)]
    assert sorted(stages) == sorted(
        [*(f"study-{what}{cell}" for what in ("run", "train") for cell in cells), "study"]
    )
    run, train = stages["study-run@k20-5"], stages["study-train@k20-5"]
    assert run.cmd == "mac study-run --variant k20 --seed 5"
    assert [out.def_path for out in run.outs] == [
        "data/study/runs/k20/5",
        "data/timings/study-run/k20/5.json",
    ]
    assert train.outs[0].def_path == "data/study/erm/k20/5"
    deps, tracked = tracked_by(run)
    assert [stage.name for stage in graph.before(graph.stage("study-train"))] == ["prepare"]
    before = graph.before(graph.stage("study-run"))
    names = ["prepare", "saliency", "masks", "originals", "features", "sweep", "retrain", "baselines"]
    assert [stage.name for stage in before] == names
    for stage in (*before[1:], graph.stage("ablation")):
        needed = {dep for dep in dvc_stage(stage)["deps"] if dep.startswith("pipeline/")}
        assert all(dep in deps or any(Path(dep).is_relative_to(each) for each in deps) for dep in needed)
        assert set(dvc_stage(stage)["params"]) - set(OF_RUN) <= tracked
    assert {"data/images.h5", "data/study/erm/k20/5", "data/external_masks"} < deps
    assert {"study.variants.k20", "study.threads"} < tracked
    unread = {"study.seeds", "study.variants", "dataset.root", "retrain.memory", "tracking.to", *OF_RUN}
    assert not unread & tracked
    deps, tracked = tracked_by(train)
    alone = dvc_stage(graph.stage("train"))
    assert deps == {"params.yaml", *alone["deps"]}
    assert tracked == {"study.variants.k20", "study.threads", *alone["params"]} - {"train.seed"}


def tracked_by(stage: PipelineStage) -> tuple[set[str], set[str]]:
    """The files and the parameters that a stage of DVC depends on."""
    (tracked,) = (set(dep.params) for dep in stage.deps if isinstance(dep, ParamsDependency))
    return {dep.def_path for dep in stage.deps if dep.def_path}, tracked


@pytest.mark.parametrize("stage", ONCE, ids=lambda stage: stage.name)
def test_dvc_runs_what_the_list_says(stage: Stage) -> None:
    found = dvc_stage(stage)
    assert found["cmd"] == f"mac {stage.name}"
    assert {f"data/{KINDS[name].path}" for name in stage.needs} <= set(found["deps"])
    of_runs = OF_RUN if stage.name == "study" else ()
    assert found.get("params", []) == [key for key in stage.keys if key not in of_runs]
    assert f"data/timings/{stage.name}.json" in str(found["metrics"])


def modules_of(stage: Stage) -> set[str]:
    """The modules of a stage's parameters, and of what these are derived from."""
    found = set()
    for model in stage.models():
        found |= {f"{base.__module__.replace('.', '/')}.py" for base in model.__mro__}
    return {name for name in found if name.startswith("pipeline/params/")}


def test_no_stage_depends_on_the_list_of_stages_nor_on_another_s_parameters() -> None:
    """A new stage, or a new parameter of one stage, must not make the others run again."""
    for stage in STAGES:
        deps = dvc_stage(stage)["deps"]
        assert not [
            path for path in deps if path.startswith("stages/") or "graph.py" in path or "params_file" in path
        ]
        allowed = set()
        for other in STAGES:
            module = f"pipeline/{other.run.partition(':')[0].replace('.', '/')}.py"
            if module in deps:  # its own module, or another's that it calls
                allowed |= modules_of(other)
        if "pipeline/network/training.py" in deps:
            allowed |= {f"pipeline/params/{name}.py" for name in ("model", "train", "inputs")}
        extra = {path for path in deps if path.startswith("pipeline/params")} - allowed
        assert not extra, (stage.name, extra)


SHOWN = {"evaluate", "report", "comparison_report"}
AFTER_FEATURES = {"sweep", "retrain", "baselines", "examples", "ablation"} | SHOWN
RUN_AGAIN = [
    (("retrain.alpha", "retrain.beta"), {"retrain"}, SHOWN),
    (("features.draws", "features.low_loss"), {"features", "ablation"}, AFTER_FEATURES),
    (("features.precision",), {"originals", "features", "ablation"}, AFTER_FEATURES),
    (("saliency.top_k", "saliency.size"), {"masks", "ablation"}, {"features", *AFTER_FEATURES}),
    (("saliency.method",), {"saliency", "ablation"}, {"masks", "features", *AFTER_FEATURES}),
]


@pytest.mark.parametrize(("keys", "read_by", "follow"), RUN_AGAIN)
def test_a_new_value_runs_what_reads_it_and_what_follows_alone(
    keys: tuple[str, ...], read_by: set[str], follow: set[str]
) -> None:
    """For a new K no network is trained, no map is made, and no original is shown to the network."""
    once = {stage.name: dvc_stage(stage) for stage in ONCE if stage.pipeline != "study"}
    for key in keys:
        again = {name for name, stage in once.items() if key in stage.get("params", [])}
        assert again == read_by
        for name, stage in once.items():  # in their order: a stage comes after what it needs
            made = {f"data/{kind.path}" for kind in KINDS.values() if kind.stage in again}
            if made & {*stage["deps"]}:
                again.add(name)
        assert again == read_by | follow


def test_a_key_of_the_sweep_is_read_by_what_fits_a_grid() -> None:
    once = [stage for stage in ONCE if stage.pipeline != "study"]
    params = {stage.name: dvc_stage(stage).get("params", []) for stage in once}
    for key, read_by in (
        ("sweep.seeds", {"sweep"}),
        ("sweep.alphas", {"sweep", "ablation"}),
        ("sweep.l2s", {"sweep", "ablation", "baselines"}),
    ):
        assert {name for name, keys in params.items() if key in keys} == read_by


def test_modules_are_the_import_closure_without_what_only_types_need() -> None:
    found = modules("pipeline.steps.evaluate")
    assert "pipeline/steps/evaluate.py" in found
    assert "pipeline/metrics.py" in found
    assert "pipeline/store" in found  # used as a whole: its folder
    assert "pipeline/compute/engine.py" not in found
