"""params.yaml: one block per stage, read and checked here and nowhere else.

Every key must be there: what runs is what the file says, and DVC sees all of it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import MacError

Precision = Annotated[
    Literal["auto", "float32", "bfloat16"], Field(description="of the network; auto: bfloat16 where the hardware computes in it")
]
ToStored = Literal["squash", "center_crop"]
Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0)]
Part = Annotated[float, Field(gt=0, lt=0.5)]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NoOptions(_Block):
    """`dataset.options` of a reader that has none."""


class FolderOptions(_Block):
    """`dataset.options` of the reader `folder`. A column that the table does not have is `null`."""

    metadata: str | None = Field(description="CSV file in the folder; null: one folder a class")
    path: str = Field(default="path", description="column of the image file, relative to the folder")
    label: str = Field(default="label", description="column of the class, a name or a number")
    split: str | None = Field(default="split", description="column of train, val, test; null: a seeded split within each class")
    attribute: str | None = Field(default=None, description="column of the spurious attribute; empty cells are unknown")
    mask: str | None = Field(default=None, description="column of the true mask's file, used only to measure; empty cells have none")
    val: Part = Field(default=0.15, description="fraction of a seeded split")
    test: Part = Field(default=0.15, description="fraction of a seeded split")
    seed: Seed = Field(default=0, description="of a seeded split")


class CelebaOptions(_Block):
    """`dataset.options` of the reader `celeba`: two of its 40 attributes."""

    label: str = Field(default="Blond_Hair", description="attribute that is the class")
    attribute: str = Field(default="Male", description="attribute that is spurious")


class MetashiftOptions(_Block):
    """`dataset.options` of the reader `metashift`."""

    val: Part = Field(default=0.15, description="seeded fraction of the test images that is the validation split")
    seed: Seed = Field(default=0, description="of that fraction")


class BarOptions(_Block):
    """`dataset.options` of the reader `bar`."""

    val: Part = Field(default=0.15, description="seeded fraction of the training images that is the validation split")
    seed: Seed = Field(default=0, description="of that fraction")


def _distinct(value: list[str]) -> list[str]:
    if len(set(value)) < max(2, len(value)):
        raise ValueError("should be two or more different classes")
    return value


Classes = Annotated[list[str], AfterValidator(_distinct)]


class DominoesOptions(_Block):
    """`dataset.options` of the reader `dominoes`."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    core: str = Field(default="cifar10", description="lower half: cifar10, fashion_mnist, mnist, or a folder of `<part>/<class>/`")
    spurious: str = Field(default="mnist", description="upper half, likewise")
    core_classes: Classes = Field(default=["automobile", "truck"], description="the classes")
    spurious_classes: Classes = Field(default=["0", "1"], description="the attributes, in the order of their classes")
    correlation: float = Field(
        default=0.95, ge=0, le=1, description="share of a class's training images with the attribute that goes with it"
    )
    val: Part = Field(default=0.15, description="seeded fraction of the training images that is the validation split")
    seed: Seed = Field(default=0, description="of the pairs and the split")

    @model_validator(mode="after")
    def _pairs(self) -> "DominoesOptions":
        if len(self.core_classes) != len(self.spurious_classes):
            raise ValueError("core_classes and spurious_classes should be as many: each class goes with one")
        return self


OPTIONS: dict[str, type[_Block]] = {
    "demo": NoOptions,
    "waterbirds": NoOptions,
    "celeba": CelebaOptions,
    "metashift": MetashiftOptions,
    "dominoes": DominoesOptions,
    "bar": BarOptions,
    "folder": FolderOptions,
}


class DatasetParams(_Block):
    """`dataset`: which images, and how they become the model's input."""

    name: Literal[
        "demo",
        "waterbirds",
        "celeba",
        "metashift",
        "dominoes",
        "bar",
        "folder",
    ] = Field(description="reader of its files")
    root: str = Field(min_length=1, description="folder of the dataset")
    options: dict[str, Any] = Field(description="what the reader wants to know besides; {} for most")
    stored_size: Positive = Field(description="side of the stored images, pixels")
    to_stored: ToStored = Field(description="squash: both sides to stored_size; center_crop: the largest square in the middle")
    input_size: Positive = Field(description="side of the model's input, pixels")
    to_input: Literal["center_crop", "resize"] = Field(description="from stored to input size")
    on_error: Literal["fail", "skip"] = Field(description="what to do about images that cannot be read")

    @property
    def reader_options(self) -> _Block:
        """`options` as the reader's own model."""
        return OPTIONS[self.name].model_validate(self.options)


class ModelParams(_Block):
    """`model`: the backbone."""

    architecture: str = Field(description="torchvision model name")
    weights: str = Field(description="none, a torchvision weights name, or a .safetensors/.pth file")


def _crop_scale(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1] <= 1:
        raise ValueError("should be two rising fractions of the area, 0 < low <= high <= 1")
    return value


class TrainParams(_Block):
    """`train`: ERM by SGD."""

    epochs: Positive = Field(description="passes over the training images")
    batch_size: int = Field(ge=2, description="images a step")
    lr: float = Field(gt=0, description="learning rate, the highest of the schedule")
    momentum: float = Field(ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(ge=0, description="of SGD")
    schedule: Literal["constant", "cosine", "one_cycle"] = Field(description="of the learning rate")
    crop_scale: Annotated[tuple[float, float], AfterValidator(_crop_scale)] = Field(description="area of the random crop")
    flip: bool = Field(description="random horizontal flip")
    precision: Precision
    select: Literal["last", "best"] = Field(description="which epoch is the ERM model; best: validation worst group")
    hold_out: float = Field(ge=0, lt=1, description="fraction of each class's training images that ERM does not see (AFR wants 0.2)")
    seed: Seed = Field(description="of the fresh head, the order and the augmentation")


def _top_k(value: float) -> float:
    if not (0 < value < 1 or (value >= 1 and value == int(value))):
        raise ValueError("should be a whole number of pixels, or a fraction in (0, 1)")
    return value


class SaliencyParams(_Block):
    """`saliency`: map and mask of every training image."""

    method: Literal[
        "xgradcam",
        "gradcam",
        "gradcam++",
        "scorecam",
        "layercam",
        "eigencam",
        "random",
        "foreground",
    ] = Field(description="random and foreground (true masks) are controls")
    balance: Literal["none", "class"] = Field(description="class: a seeded retraining set with as many images of each class")
    target: Literal["label", "prediction"] = Field(description="class that the map explains")
    layer: str = Field(description="last (closed form), or a module of the trunk (autograd)")
    top_k: Annotated[float, AfterValidator(_top_k)] = Field(description="pixels in the mask, or a fraction in (0, 1)")
    precision: Precision
    seed: Seed = Field(description="of the random control and of balance")
    previews: int = Field(ge=0, description="overlays to store as pictures in masks.h5")


class FeaturesParams(_Block):
    """`features`: the cached views."""

    draws: Positive = Field(description="R, pairing draws to cache")
    batch_size: int = Field(ge=2, description="rows that share a fill and are each other's partners; the retraining batch")
    precision: Precision
    seed: Seed = Field(description="of the pairing plan")


class RetrainParams(_Block):
    """`retrain`: the last layer (paper equation 6)."""

    solver: Literal["adam", "lbfgs"] = Field(description="adam: the paper's; lbfgs: the same problem solved outright")
    alpha: float = Field(ge=0, description="weight of the masked views")
    beta: float = Field(ge=0, description="weight of the combined views")
    seeds: Positive = Field(description="heads to report, for a mean and a spread (adam)")
    average: Positive = Field(description="fits of different seeds whose mean is one such head (adam)")
    init: Literal["erm", "zeros"] = Field(description="where the head starts")
    standardize: bool = Field(description="features by the originals' mean and deviation")
    class_weights: Literal["none", "balanced"] = Field(description="balanced: classes weigh alike, however many images they have")
    l2: float = Field(ge=0, description="L2 strength: l2 · Σ W² is added to the loss")
    epochs: Positive = Field(description="adam: passes over the views; epoch e uses draw e mod R")
    lr: float = Field(gt=0, description="adam: learning rate")
    lr_step: Positive = Field(description="adam: epochs between learning-rate drops")
    lr_gamma: float = Field(gt=0, le=1, description="adam: factor of a drop")


class BaselinesParams(_Block):
    """`baselines`: other last-layer methods on the same features, with the solver settings of `retrain`."""

    methods: list[str] = Field(min_length=1, description="of erm, llr, cb_llr, afr, dfr, dfr_train, group_dro")


class SweepParams(_Block):
    """`sweep`: every pair of α and β, every seed, fitted at once with the other settings of `retrain`."""

    alphas: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1, description="values of retrain.alpha to try")]
    betas: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1, description="values of retrain.beta to try")]


class JttParams(_Block):
    """`jtt`: Just Train Twice, otherwise as `train`."""

    first_epochs: Positive = Field(description="T, epochs before the error set is taken")
    upweight: int = Field(ge=1, description="lambda, how often an image of the error set counts")
    epochs: Positive = Field(description="of the second training")
    lr: float = Field(gt=0, description="of the second training")
    weight_decay: float = Field(ge=0, description="of the second training")


class MaskTuneParams(_Block):
    """`masktune`: one epoch on masked images, otherwise as `train`."""

    sigmas: float = Field(description="pixels above the map's mean by so many deviations are masked")
    lr: float = Field(gt=0, description="of the fine-tuning")


class ExamplesParams(_Block):
    """`examples`: which images the report shows."""

    training: int = Field(ge=0, description="training images with map, mask and interventions")
    mistakes: int = Field(ge=0, description="test images that ERM gets wrong, with both heads' maps")
    seed: Seed = Field(description="of the choice of images")


class Params(_Block):
    """All of params.yaml."""

    dataset: DatasetParams
    model: ModelParams
    train: TrainParams
    saliency: SaliencyParams
    features: FeaturesParams
    retrain: RetrainParams
    baselines: BaselinesParams
    sweep: SweepParams
    jtt: JttParams
    masktune: MaskTuneParams
    examples: ExamplesParams


def load(path: Path) -> Params:
    """Read and check params.yaml (YAML 1.2, as DVC reads it).

    Raises:
        MacError: one line naming the file and the dotted key.
    """
    try:
        values = YAML(typ="safe").load(path)
    except OSError as error:
        raise MacError(f"{path}: cannot be read ({error.strerror})") from None
    except YAMLError as error:
        raise MacError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    return parse(values, str(path))


def parse(values: Any, where: str) -> Params:
    """Check values already read; `where` starts the error line."""
    prefix: tuple[str, ...] = ()
    try:
        params = Params.model_validate(values)
        prefix = ("dataset", "options")
        params.dataset.reader_options  # noqa: B018 (checks them)
        return params
    except ValidationError as error:
        first, *others = error.errors()
        key = ".".join(str(part) for part in (*prefix, *first["loc"]) if part != "function-after") or "top level"
        found = "" if first["type"] == "missing" or isinstance(first["input"], dict) else f", found {first['input']!r}"
        reason = {"missing": "this key is missing", "extra_forbidden": "unknown key"}.get(first["type"], first["msg"])
        more = f" (and {len(others)} more)" if others else ""
        raise MacError(f"{where}: {key}: {reason}{found}{more}") from None
