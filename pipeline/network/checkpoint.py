"""A training on disk after its last whole epoch. A training that was killed continues from there."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline import store
from pipeline.compute.progress import log
from pipeline.network.history import Epoch

Tensors = dict[str, Tensor]
_SETS = ("last", "best", "momentum", "early")  # the attributes of a Checkpoint that hold tensors


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to continue after its last whole epoch.

    Attributes:
        last: the model's state dict after the last epoch, on the CPU.
        best: its state dict after the best epoch so far.
        momentum: SGD's momentum buffers, by the number of the parameter.
        early: (N, classes) float32, the logits on the training split after each kept epoch, by its number.
        reference: (n, classes) float32, the logits of the criterion's reference on validation.
        epochs: the measurements of each epoch.
    """

    last: Tensors
    best: Tensors
    momentum: Tensors
    early: Tensors
    reference: Tensor
    epochs: list[Epoch]

    def write(self, path: Path) -> None:
        """Write it to a safetensors file, whole or not at all.

        Raises:
            MacError: the file cannot be written.
        """
        tensors: Tensors = {"reference.logits": self.reference}
        for prefix in _SETS:
            tensors |= {f"{prefix}.{name}": tensor for name, tensor in getattr(self, prefix).items()}
        epochs = json.dumps([asdict(epoch) for epoch in self.epochs])
        with store.replacing(path) as temporary, store.tensor_errors():
            save_file(tensors, temporary, {"epochs": epochs})

    @classmethod
    def read(cls, path: Path) -> "Checkpoint | None":
        """The checkpoint in a file.

        None if there is no such file. If it is damaged, also None, with a warning in the log.
        """
        if not path.is_file():
            return None
        sets: dict[str, Tensors] = {name: {} for name in (*_SETS, "reference")}
        try:
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a dict)
                    prefix, _, name = key.partition(".")
                    sets[prefix][name] = file.get_tensor(key)
                reference = sets.pop("reference")["logits"]
                epochs = [_epoch(**values) for values in json.loads(file.metadata()["epochs"])]
        except (OSError, SafetensorError, LookupError, TypeError, ValueError):
            log.warning("%s: damaged, training starts anew", path)
            return None
        return cls(**sets, reference=reference, epochs=epochs)


def _epoch(val_accuracy: list[float], **others: float) -> Epoch:
    """An epoch from its JSON values, in which the accuracies are a list."""
    return Epoch(val_accuracy=tuple(val_accuracy), **others)
