"""A classifier for use elsewhere: ONNX, TorchScript or safetensors, with its preprocessing, checked against PyTorch; and its model card."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline import store
from pipeline.errors import MacError
from pipeline.evaluate import measure
from pipeline.network import backbone
from pipeline.network.backbone import Classifier
from pipeline.network.inputs import normalize
from pipeline.results.coverage import input_grid
from pipeline.results.tables import of_metrics
from pipeline.store import ModelFolder

Format = Literal["onnx", "torchscript", "safetensors"]
FORMATS: tuple[Format, ...] = get_args(Format)
OPSET = 18
CHECKED = 32  # images
TOLERANCE = 1e-4
CARD = "MODEL_CARD.md"


class Checked(NamedTuple):
    """How a file was held against PyTorch.

    Attributes:
        images: held-out images; 32, or as many as there are.
        difference: the largest of a logit, in times of Σ |W φ| + |b| where that is above 1.
    """

    images: int
    difference: float


class Sources(NamedTuple):
    """Where everything lies that the classifier was made from, and measured on for its card."""

    images: Path
    features: Path
    erm: Path
    retrained: Path


def export(model: Literal["mac", "erm"], sources: Sources, out: Path, how: Format) -> Checked:
    """Write a classifier to `out`, and MODEL_CARD.md beside it.

    The file takes `image` (N, 3, S, S) float32, normalised, and gives `logits` (N, classes); it names the classes and every step from an
    image file to its input. What it computes is held against PyTorch on 32 held-out images before it takes its place.

    Returns:
        On how many images, and how far, it differs from PyTorch.

    Raises:
        MacError: an input is missing, or does not belong to the rest; a package for the format is not installed; the results differ
            by more than 1e-4.
    """
    robust = model == "mac"
    metrics, _ = measure(*sources)
    folder = store.open_model(sources.retrained, "retrained") if robust else store.open_model(sources.erm, "erm")
    with store.open_artefact(sources.images, "images") as images:
        held_out = np.flatnonzero(images["split"][:] != 0)[:CHECKED]
        x = normalize(input_grid(images, images.rows("image", held_out))).contiguous()
        dataset = dict(images.provenance.params)
    classifier = backbone.load(folder, torch.device("cpu"))
    with torch.no_grad():
        features, head = classifier.features(x), classifier.head
        expected = head(features)
        # What rounding of features does to a logit grows with the terms that it is the sum of.
        scale = (features.abs() @ head.weight.abs().T + head.bias.abs()).clamp(min=1)
    about = {key: json.dumps(value, ensure_ascii=False) for key, value in folder.spec.items()} | {"digest": folder.digest}
    with store.replacing(out) as temporary:
        run = WRITERS[how](classifier, x[:2], about, temporary)
        checked = Checked(len(x), float(((run(x) - expected).abs() / scale).max()))
        if not checked.difference <= TOLERANCE:
            raise MacError(f"{out}: not written: its logits differ from PyTorch's by {checked.difference:.2g}, more than {TOLERANCE:g}")
    store.write_text(out.with_name(CARD), card(folder, robust, dataset, metrics, out.name, how, checked))
    return checked


Run = Callable[[Tensor], Tensor]


def _onnx(model: Classifier, example: Tensor, about: dict[str, str], path: Path) -> Run:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch.onnx needs it)
    except ImportError as error:
        raise MacError(f"--format onnx needs {error.name}: pip install 'mac-robust[onnx]'") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        batch = {0: torch.export.Dim("batch")}
        program = torch.onnx.export(
            model, (example,), dynamo=True, opset_version=OPSET, input_names=["image"], output_names=["logits"], dynamic_shapes=(batch,),
            external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, about)
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["logits"], {"image": x.numpy()})[0])


def _torchscript(model: Classifier, example: Tensor, about: dict[str, str], path: Path) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(model, example), path, _extra_files={"spec.json": json.dumps(about, ensure_ascii=False)})
        loaded = torch.jit.load(path)
    return torch.no_grad()(lambda x: torch.as_tensor(loaded(x)))


def _safetensors(model: Classifier, example: Tensor, about: dict[str, str], path: Path) -> Run:
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, path, about)
    path.chmod(0o644)
    again = backbone.build(json.loads(about["architecture"]), len(json.loads(about["classes"])))
    again.load_state_dict(load_file(path))
    return torch.no_grad()(again.eval())


WRITERS: dict[Format, Callable[[Classifier, Tensor, dict[str, str], Path], Run]] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
    "safetensors": _safetensors,
}


def card(
    folder: ModelFolder, robust: bool, dataset: dict[str, Any], metrics: dict[str, Any], file: str, how: Format, checked: Checked
) -> str:
    """The model card: data, method (MaC's if `robust`, else ERM's), results by group, limits."""
    spec, made = folder.spec, folder.provenance.params
    stored = {"squash": "scaled", "center_crop": "the largest square in the middle, scaled"}[spec["to_stored"]]
    grid = {"center_crop": "the middle", "resize": "scaled to"}[spec["to_input"]]
    form = {"onnx": f"ONNX, opset {OPSET}", "torchscript": "TorchScript", "safetensors": "safetensors: the tensors alone"}[how]
    counts, size = metrics["count"]["test"], spec["input_size"]
    lines = [
        f"# {file}",
        "",
        f"A {spec['architecture']} that tells {_listed(spec['classes'])} apart ({form}).",
        "",
        "## Input and output",
        "",
        f"- input `image`: (N, 3, {size}, {size}) float32. An RGB image is {stored} to {spec['stored_size']} × {spec['stored_size']} "
        f"(bilinear, antialiased), then {grid} {size} × {size}, divided by 255, "
        f"minus {_numbers(spec['mean'])}, divided by {_numbers(spec['std'])} (channels R, G, B);",
        f"- output `logits`: (N, {len(spec['classes'])}), in the order {_listed(spec['classes'])}.",
        "",
        f"Its logits were compared with PyTorch's on {checked.images} held-out images: they differ by at most {checked.difference:.1e} "
        "of the sum of their terms' magnitudes.",
        "",
        "## Data",
        "",
        f"Dataset `{dataset['name']}`; {sum(counts.values())} test images: " + ", ".join(f"{name} {n}" for name, n in counts.items()) + ".",
        f"Spurious attribute: {_listed(spec['attributes']) if spec['attributes'] else 'none is known'}.",
        "",
        "## Method",
        "",
    ]
    if robust:
        lines += [
            "MaC (Hosseini Noohdani et al., *Mitigating Spurious Correlation in Images by Intervention*): a network trained as usual "
            "(ERM), its last layer retrained on the training images, on their cores alone "
            f"(α = {made['alpha']:g}) and on their cores over other classes' backgrounds (β = {made['beta']:g}). Group labels served model "
            "selection on the validation split alone.",
        ]
    else:
        lines += ["Empirical risk minimisation (ERM): trained as usual, with no defence against spurious correlations."]
    lines += ["", "## Results", "", "ERM and MaC on the test split:", "", "```", of_metrics(metrics), "```", ""]
    if robust and metrics["seeds"] > 1:
        lines += [f"The file holds one of the {metrics['seeds']} heads: the one that the validation split prefers.", ""]
    lines += [
        "## Limits",
        "",
        "- The figures hold for images like the test split's; groups that are rare there are known less well, see the interval above.",
        "- The backbone is as ERM trained it: what it cannot tell apart, no last layer can.",
        "- A class outside of those named is given one of their names all the same.",
        "",
        f"Model digest: `{folder.digest}`",
        "",
    ]
    return "\n".join(lines)


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _numbers(values: list[float] | NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
