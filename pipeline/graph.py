"""The one list of the stages: what each needs, what it makes, and which parameters it reads.

The commands of `mac`, dvc.yaml, the remedies in messages, the order in the report, and tests are made from
this list. It names modules and does not import them, so it loads fast.
"""

from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.kind import Kind

if TYPE_CHECKING:
    from pipeline.params.block import Block
    from pipeline.project import Project


@dataclass(frozen=True)
class Stage:
    """A stage: `run(given, *outs, *params, context)`, a command of `mac` and a stage of DVC.

    Attributes:
        name: the name of the command, `mac <name>`.
        about: what it does, in one line.
        run: its function, `<module>:<function>` below `pipeline`.
        needs: the artefacts that it reads; the function gets them opened.
        makes: the artefacts that it writes; the function gets one path for each.
        params: its parameter models, `<module>:<class>` below `pipeline.params`; the function gets one of
            each.
        device: whether the user can choose the device that it computes on.
        cluster: whether the workers of a Dask cluster can do its work.
        together: whether the processes that torchrun starts can do it together.
        tracked: whether a tracker of experiments is told of it (`tracking.to`).
        files: the user's own files that it reads, as dvc.yaml names them.
        pipeline: the DVC file that it is in: `main`; or `comparison` or `study`, which a plain `dvc repro`
            does not run.
        repeated: whether it is run for each seed and variant of the study, in a project of its own, after the
            stages that make what it needs (but for those that another repeated stage stands for).
    """

    name: str
    about: str
    run: str
    needs: tuple[str, ...]
    makes: tuple[Kind, ...]
    params: tuple[str, ...] = ()
    device: bool = True
    cluster: bool = False
    together: bool = False
    tracked: bool = False
    files: tuple[str, ...] = ()
    pipeline: Literal["main", "comparison", "study"] = "main"
    repeated: bool = False

    def function(self) -> Any:
        """The function, imported now."""
        return _imported(f"pipeline.{self.run}")

    def models(self) -> "list[type[Block]]":
        """The parameter models, imported now."""
        return [_imported(f"pipeline.params.{name}") for name in self.params]

    @property
    def keys(self) -> list[str]:
        """The parameters that change what it makes, such as `train.epochs`."""
        return list(chain.from_iterable(_keys(model) for model in self.models()))


def _keys(model: "type[Block]") -> list[str]:
    return [f"{model.block}.{key}" for key in model.model_fields if key not in model.of_machine]


# What both reports show.
REPORTED = ("images", "erm", "masks", "features", "retrained", "baselines", "sweep", "examples")
# The parameters of all stages of a run of the study.
OF_RUNS = (
    "inputs:InputParams",
    "model:ModelParams",
    "train:TrainParams",
    "selection:SelectionParams",
    "retraining_set:RetrainingSetParams",
    "saliency:SaliencyParams",
    "masks:MasksParams",
    "features:FeaturesParams",
    "sweep:SweepParams",
    "retrain:RetrainParams",
    "baselines:BaselinesParams",
)

STAGES = (
    Stage(
        "prepare",
        about="decode the raw images into images.h5",
        run="steps.prepare:prepare",
        needs=(),
        makes=(Kind("images", "images.h5", "hdf5"),),
        params=("dataset:DatasetParams",),
        device=False,
        cluster=True,
        files=("${dataset.root}",),
    ),
    Stage(
        "train",
        about="train the classifier by ERM",
        run="steps.train:train",
        needs=("images",),
        makes=(Kind("erm", "erm", "model"),),
        params=("inputs:InputParams", "model:ModelParams", "train:TrainParams", "selection:SelectionParams"),
        together=True,
        tracked=True,
        files=("data/weights",),
    ),
    Stage(
        "saliency",
        about="compute the saliency map of the training and validation images",
        run="steps.saliency:saliency",
        needs=("images", "erm"),
        makes=(Kind("maps", "maps.h5", "hdf5"),),
        params=("retraining_set:RetrainingSetParams", "saliency:SaliencyParams"),
        cluster=True,
    ),
    Stage(
        "masks",
        about="make the masks of the maps, K pixels each",
        run="steps.masks:masks",
        needs=("images", "erm", "maps"),
        makes=(Kind("masks", "masks.h5", "hdf5"),),
        params=("masks:MasksParams",),
        cluster=True,
        files=("${saliency.external}",),
    ),
    Stage(
        "originals",
        about="cache the features of the images as they are",
        run="steps.originals:originals",
        needs=("images", "erm"),
        makes=(Kind("originals", "originals.h5", "hdf5"),),
        params=("retraining_set:RetrainingSetParams", "originals:OriginalsParams"),
        cluster=True,
    ),
    Stage(
        "features",
        about="cache the features of the masked and combined images, beside those of the originals",
        run="steps.features:features",
        needs=("images", "erm", "originals", "masks"),
        makes=(Kind("features", "features.h5", "hdf5"),),
        params=("features:FeaturesParams",),
        cluster=True,
    ),
    Stage(
        "sweep",
        about="fit every pair of alpha and beta at once, and pick one",
        run="steps.sweep:sweep",
        needs=("images", "erm", "masks", "features"),
        makes=(Kind("sweep", "sweep", "table"),),
        params=("sweep:SweepParams", "fit:FitParams", "selection:SelectionParams"),
    ),
    Stage(
        "retrain",
        about="retrain the last layer on the cached features",
        run="steps.retrain:retrain",
        needs=("erm", "features", "sweep"),
        makes=(Kind("retrained", "retrained", "model"),),
        params=("retrain:RetrainParams", "selection:SelectionParams"),
        cluster=True,
        tracked=True,
    ),
    Stage(
        "baselines",
        about="fit other methods of the last layer on the same features",
        run="steps.baselines:baselines",
        needs=("images", "erm", "features"),
        makes=(Kind("baselines", "baselines", "model"),),
        params=(
            "baselines:BaselinesParams",
            "sweep:PenaltyParams",
            "fit:FitParams",
            "selection:SelectionParams",
        ),
    ),
    Stage(
        "evaluate",
        about="compare MaC with ERM and the other methods on the test split",
        run="steps.evaluate:evaluate",
        needs=("images", "erm", "masks", "features", "retrained", "baselines"),
        makes=(Kind("metrics", "metrics.json", "metrics"), Kind("plots", "plots", "files")),
        device=False,
        tracked=True,
    ),
    Stage(
        "examples",
        about="make the parts of the report that do not depend on alpha and beta",
        run="steps.examples:examples",
        needs=("images", "erm", "masks", "features"),
        makes=(Kind("examples", "examples.h5", "hdf5"),),
        params=("examples:ExamplesParams",),
    ),
    Stage(
        "report",
        about="write the page that says whether MaC helps",
        run="steps.report:report",
        needs=REPORTED,
        makes=(Kind("report", "report.html", "files"),),
        device=False,
        tracked=True,
    ),
    Stage(
        "jtt",
        about="train by Just Train Twice, to compare with",
        run="comparison.jtt:jtt",
        needs=("images", "erm"),
        makes=(Kind("jtt", "comparison/jtt", "model"),),
        params=("jtt:JttParams", "selection:SelectionParams"),
        together=True,
        files=("data/weights",),
        pipeline="comparison",
    ),
    Stage(
        "masktune",
        about="train by MaskTune, to compare with",
        run="comparison.masktune:masktune",
        needs=("images", "erm"),
        makes=(Kind("masktune", "comparison/masktune", "model"),),
        params=("masktune:MaskTuneParams", "selection:SelectionParams"),
        together=True,
        pipeline="comparison",
    ),
    Stage(
        "ablation",
        about="retrain with random masks and with the true masks",
        run="comparison.ablation:ablation",
        needs=("images", "erm", "originals", "masks", "features"),
        makes=(Kind("ablation", "comparison/ablation", "table"),),
        params=(
            "maps:MapParams",
            "cores:CoreParams",
            "features:FeaturesParams",
            "sweep:GridParams",
            "fit:FitParams",
            "selection:SelectionParams",
        ),
        pipeline="comparison",
    ),
    Stage(
        "comparison_report",
        about="write the report with the results of the second pipeline",
        run="steps.report:report",
        needs=(*REPORTED, "jtt", "masktune", "ablation"),
        makes=(Kind("comparison_report", "comparison/report.html", "files"),),
        device=False,
        pipeline="comparison",
    ),
    Stage(
        "study-train",
        about="train one of the study's classifiers by ERM",
        run="steps.train:train",
        needs=("images",),
        makes=(Kind("study_erm", "study/erm", "model"),),
        params=("inputs:InputParams", "model:ModelParams", "train:TrainParams", "selection:SelectionParams"),
        files=("data/weights",),
        pipeline="study",
        repeated=True,
    ),
    Stage(
        "study-run",
        about="run everything after train once, for the study",
        run="study.run:run",
        needs=("images", "erm", "originals", "masks", "features", "retrained", "baselines"),
        makes=(Kind("run", "study/runs", "model"),),
        params=("study:StudyParams", *OF_RUNS),
        cluster=True,
        pipeline="study",
        repeated=True,
    ),
    Stage(
        "study",
        about="compare the methods over all runs of the study",
        run="study.merge:study",
        needs=(),
        makes=(
            Kind("study", "study/study.json", "metrics"),
            Kind("study_table", "study/runs.csv", "files"),
            Kind("study_figure", "study/runs.svg", "files"),
        ),
        params=("study:StudyParams", *OF_RUNS),
        device=False,
        files=("data/study/runs",),
        pipeline="study",
    ),
)

# Every kind of artefact by its name, with the stage that makes it.
KINDS: dict[str, Kind] = {}
for _stage in STAGES:
    KINDS |= {made.name: made.by(_stage.name) for made in _stage.makes}


def stage(name: str) -> Stage:
    """The stage of that name."""
    return {each.name: each for each in STAGES}[name]


def before(repeated: Stage) -> list[Stage]:
    """The stages that have to run before a repeated stage, in their order; not those run by another one."""
    wanted, found = set(repeated.needs), list[Stage]()
    others = {each.run for each in STAGES if each.repeated}
    for each in reversed(STAGES):
        if wanted & {made.name for made in each.makes}:
            wanted |= set(each.needs)
            if each.run not in others:
                found.insert(0, each)
    return found


def project(data: Path, **elsewhere: Path) -> "Project":
    """The project in a data folder; `elsewhere` has the paths of artefacts that are in another place."""
    from pipeline.project import Project

    return Project(data, KINDS, elsewhere)


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(
        import_module(module if module.startswith("pipeline.") else f"pipeline.{module}"), attribute
    )
