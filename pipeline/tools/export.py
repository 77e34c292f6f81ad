"""Writes a classifier as one file for other programs (ONNX, TorchScript or safetensors), with a model card.

The same head gives the same bytes, and they say nothing of the machine, the process or the folders here.
The file is compared with PyTorch before it gets its final name. Its probabilities can be calibrated on the
validation split: the last layer's weight and bias are divided by a temperature.
"""

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from pipeline import store
from pipeline.errors import MacError
from pipeline.network import classifier
from pipeline.network.classifier import Classifier
from pipeline.project import Opened, Project
from pipeline.results import calibration
from pipeline.results.pictures import input_pixels
from pipeline.store import SPLITS
from pipeline.tools import card
from pipeline.tools.heads import artefact_of, named_head
from pipeline.tools.model import with_head

Format = Literal["onnx", "torchscript", "safetensors"]
FORMATS: tuple[Format, ...] = get_args(Format)
OPSET = 18
CHECKED = 32  # images
TOLERANCE = 1e-4
CARD = "MODEL_CARD.md"
# The names of the formats on the card.
_TITLES: dict[Format, str] = {
    "onnx": f"ONNX, opset {OPSET}",
    "torchscript": "TorchScript",
    "safetensors": "safetensors: the tensors alone",
}

# The computation of a file: from the classifier's input to its logits.
Computed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Checked:
    """An exported file: its comparison with PyTorch, and its temperature.

    Attributes:
        images: number of images, from the held-out splits: 32, or all if there are fewer.
        difference: the largest difference of a logit, divided by Σ |W φ| + |b| if that is above 1.
        temperature: T, by which the logits are divided; None if they are as they were.
    """

    images: int
    difference: float
    temperature: float | None


def export(project: Project, name: str, out: Path, how: Format, calibrated: bool = False) -> Checked:
    """Write a classifier to `out`, and MODEL_CARD.md beside it.

    The file takes `image` (N, 3, S, S) float32, normalised, and gives `logits` (N, classes). It names the
    classes and every step from an image file to its input. Its results are compared with PyTorch's on 32
    images of the held-out splits.

    Args:
        name: the name of the head, one of `heads.NAMES`.
        how: the format.
        calibrated: whether to divide the logits by the temperature that fits the validation split
            (`results.calibration`). The card states it.

    Returns:
        How much it differs from PyTorch, and the temperature.

    Raises:
        MacError: an artefact is missing, or does not belong to the others; no method has this name; there is
            nothing to calibrate with; a package for the format is not installed; the results differ by more
            than 1e-4; metrics.json of baselines is damaged. Then nothing is written.
    """
    if out.name == CARD:
        raise MacError(f"{out}: is the name of the model card; choose another")
    opened = dict.fromkeys(("images", "erm", artefact_of(name), *card.needs(name)))
    if calibrated:
        opened["features"] = None
    with project.open(*opened) as given:
        head, found = named_head(given, name), None
        if calibrated:
            found = calibration.calibrate(given, head.head)
            head = replace(head, head=calibration.scaled(head.head, found.temperature))
        model = with_head(given, head, torch.device("cpu"))
        spec, x = given.model("erm").spec, _held_out_inputs(given, model)
        about = {key: json.dumps(value, ensure_ascii=False) for key, value in spec.as_json().items()}
        about |= {"head": json.dumps(name), "digest": head.digest}
        if found:
            about["temperature"] = json.dumps(found.temperature)
        with torch.no_grad():
            features = model.features(x)
            expected = model.head(features)
            # A logit is a sum. Its rounding error grows with the terms of the sum.
            terms = features.abs() @ model.head.weight.abs().T + model.head.bias.abs()
        # Both files get their names at the end, so that an error leaves neither.
        with store.replacing(out.with_name(CARD)) as card_file, store.replacing(out) as temporary:
            computed = _WRITERS[how](model, x[:2], about, temporary)
            difference = (computed(x) - expected).abs() / terms.clamp(min=1)
            checked = Checked(len(x), float(difference.max()), found.temperature if found else None)
            if not checked.difference <= TOLERANCE:
                raise MacError(
                    f"{out}: not written: its logits differ from PyTorch's by {checked.difference:.2g}, "
                    f"more than {TOLERANCE:g}"
                )
            compared = (
                f"Its logits were compared with PyTorch's on {checked.images} images of the held-out splits: "
                f"they differ by at most {checked.difference:.1e} of the sum of their terms' magnitudes."
            )
            text = card.card(given, head, out.name, _TITLES[how], compared, found)
            card_file.write_text(text, encoding="utf-8")
    return checked


def _held_out_inputs(given: Opened, model: Classifier) -> Tensor:
    """The classifier's input for the first 32 images of the held-out splits, (n, 3, S, S)."""
    images = given.file("images")
    rows = np.flatnonzero(images["split"][:] != SPLITS.index("train"))[:CHECKED]
    return model.input(input_pixels(images, rows, given.model("erm").spec)).contiguous()


def _onnx(model: Classifier, example: Tensor, about: Mapping[str, str], path: Path) -> Computed:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch.onnx needs it)
    except ImportError as error:
        raise MacError(f"the format onnx needs {error.name}: pip install 'mac-robust[onnx]'") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about itself
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, dict(about))
    for node in [*proto.graph.node, *chain.from_iterable(function.node for function in proto.functions)]:
        node.ClearField("metadata_props")  # which lines of which files on this machine made it
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["logits"], {"image": x.numpy()})[0])


def _torchscript(model: Classifier, example: Tensor, about: Mapping[str, str], path: Path) -> Computed:
    with warnings.catch_warnings():
        # Tracing warns about what it may miss. The warnings are not needed, because the file's results are
        # checked. If a filter turns such a warning into an error, PyTorch does not raise it. CPython then
        # raises it at the next look-up of an attribute, and a module class can lose its __getattr__ for good.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, example)
        extra = {"spec.json": json.dumps(about, ensure_ascii=False)}
        # PyTorch names the archive's inner folder after the file, and ends the process on a full disk.
        archive = io.BytesIO()
        torch.jit.save(traced, archive, _extra_files=extra)
        path.write_bytes(_without_stack_traces(archive))
        loaded = torch.jit.load(path)
    return torch.no_grad()(lambda x: torch.as_tensor(loaded(x)))


def _without_stack_traces(archive: io.BytesIO) -> bytes:
    """A TorchScript file without the records that say which lines of which files on this machine traced it.

    Its serialization_id goes too, a digest of all records.
    """
    kept = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(kept, "w") as target:
        for name in source.namelist():
            if not name.endswith((".debug_pkl", ".data/serialization_id")):
                target.writestr(zipfile.ZipInfo(name), source.read(name))  # dated 1980
    return kept.getvalue()


def _safetensors(model: Classifier, example: Tensor, about: Mapping[str, str], path: Path) -> Computed:
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    path.write_bytes(_with_metadata(save(state), about))
    stated = {key: json.loads(about[key]) for key in ("architecture", "classes", "input_size")}
    again = classifier.build(stated["architecture"], len(stated["classes"]), input_size=stated["input_size"])
    again.load_state_dict(load_file(path))
    return torch.no_grad()(again.eval())


def _with_metadata(file: bytes, about: Mapping[str, str]) -> bytes:
    """A safetensors file with metadata. The library writes them in another order every time.

    The format is the header's length (8 bytes, little endian), the header (JSON, padded with spaces), and the
    tensors: https://huggingface.co/docs/safetensors
    """
    start = 8 + int.from_bytes(file[:8], "little")
    tensors = json.loads(file[8:start])
    header = json.dumps({"__metadata__": dict(about), **tensors}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[start:]


_WRITERS: dict[Format, Callable[[Classifier, Tensor, Mapping[str, str], Path], Computed]] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
    "safetensors": _safetensors,
}
