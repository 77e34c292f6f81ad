"""Short trainings on the images of the made-up project."""

from pathlib import Path

from pipeline.compute.context import Context
from pipeline.params.inputs import InputParams
from pipeline.params.model import ModelParams
from pipeline.params.selection import SelectionParams
from pipeline.params.train import TrainParams
from pipeline.project import Project
from pipeline.steps.train import train
from tests.cached import AUTO
from tests.made_up import SPEC

INPUTS = InputParams(input_size=SPEC.input_size, to_input=SPEC.to_input)
MODEL = ModelParams(
    architecture=SPEC.architecture, weights="none", classifier=None, classes=None, normalization="auto"
)
TRAIN = TrainParams(
    epochs=2,
    batch_size=8,
    lr=0.02,
    momentum=0.9,
    weight_decay=1e-4,
    schedule="cosine",
    crop_scale=(0.7, 1.0),
    flip=True,
    precision="float32",
    select="last",
    hold_out=0.0,
    keep_epochs=[],
    seed=0,
)


def context(data: Path) -> Context:
    """This process's CPU, and a scratch folder in the data folder."""
    return Context("cpu", data / "scratch")


def train_erm(
    project: Project, name: str = "erm", selection: SelectionParams = AUTO, **changes: object
) -> Path:
    """Train ERM with TRAIN, but for what is changed; the model folder."""
    out = project.data / name
    params = TRAIN.model_copy(update=changes)
    with project.open("images") as given:
        train(given, out, INPUTS, MODEL, params, selection, context(project.data))
    return out
