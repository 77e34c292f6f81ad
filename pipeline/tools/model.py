"""A model folder as a PyTorch module, and the transform to its input: `pipeline.load_model`."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pipeline import graph
from pipeline.compute.device import pick
from pipeline.datasets.depth import is_deep
from pipeline.datasets.memory import holding_images
from pipeline.datasets.sources import open_image, stored_image
from pipeline.errors import MacError
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.network.inputs import normalize, to_input_grid
from pipeline.project import Opened
from pipeline.spec import ModelSpec
from pipeline.tools.heads import BASELINES, NamedHead, named_head
from pipeline.tools.single import open_single


@dataclass(frozen=True)
class Transform:
    """From an image file to a model's input, by the same steps as in the stages.

    Attributes:
        spec: the model's spec, which states each step.
    """

    spec: ModelSpec

    @holding_images()
    def pixels(self, image: Image.Image | str | Path) -> Tensor:
        """An image, or the path of its file, on the input grid: (3, S, S) uint8.

        Raises:
            MacError: the file cannot be read as an image, or an image that is no path has grey of more than 8
                bits.
        """
        if isinstance(image, Image.Image) and is_deep(image):
            raise MacError(f"an image of mode {image.mode} has no known range; give the path of its file")
        picture = image if isinstance(image, Image.Image) else open_image(Path(image), self.spec.range)
        spec = self.spec
        stored = stored_image(picture, spec.stored_size, spec.to_stored, spec.interpolation)
        return to_input_grid(torch.from_numpy(stored.copy())[None], self.spec)[0]

    def __call__(self, image: Image.Image | str | Path) -> Tensor:
        """An image, or the path of its file, to (3, S, S) float32, normalised.

        Raises:
            MacError: the file cannot be read as an image.
        """
        return normalize(self.pixels(image)[None], self.spec.normalization)[0]


def load_model(
    path: str | Path, device: str = "cpu", method: str | None = None
) -> tuple[Classifier, Transform]:
    """A model folder as a module in eval mode, and its transform.

    Args:
        path: such as `data/retrained` or `data/erm`; or `data/baselines`, with erm/ in the same folder.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        method: for `data/baselines`, the method, such as `dfr`.

    Returns:
        The module, from (B, 3, S, S) float32 to logits (B, classes); and the transform, from an image or
        the path of its file to (3, S, S) float32.

    Raises:
        MacError: no model folder, a damaged one, no such method in it, or no such device.

    >>> import pipeline
    >>> from PIL import Image
    >>> model, transform = pipeline.load_model("data/retrained")
    >>> probabilities = model(transform(Image.new("RGB", (300, 200)))[None]).softmax(-1)
    >>> round(float(probabilities.sum()), 3)
    1.0
    """
    folder, on = Path(path), pick(device)
    with open_single(folder) as (kind, given):
        if kind.form != "model":
            raise MacError(f"{folder}: is {kind.name}, and no model folder")
        opened = given.model(kind.name)
        if kind.name != "baselines":
            if method is not None:
                raise MacError(f"{folder}: holds one model; only data/baselines has several methods")
            return classifier.load(opened.spec, opened.read(), on), Transform(opened.spec)
    if method is None:
        raise MacError(f"{folder}: holds the heads of several methods; name one of them")
    project = graph.project(folder.parent, baselines=folder)
    if method not in BASELINES:
        raise MacError(
            f"{folder}: {method} is none of its methods, which are {', '.join(BASELINES)}; "
            f"MaC's model is {project.path('retrained')}"
        )
    with project.open("erm", "baselines") as given:
        model = with_head(given, named_head(given, method), on)
        return model, Transform(given.model("erm").spec)


def with_head(given: Opened, head: NamedHead, on: torch.device) -> Classifier:
    """The ERM classifier with another head instead of its own, in eval mode.

    Args:
        given: erm.
    """
    erm = given.model("erm")
    tensors = erm.read() | {"head.weight": head.head.weight[0], "head.bias": head.head.bias[0]}
    return classifier.load(erm.spec, tensors, on)
