"""The partial sums of a fit by L-BFGS on the workers of a cluster, which keep features.h5 open."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.compute import device
from pipeline.last_layer import mac
from pipeline.last_layer.lbfgs import Elsewhere, PartialSums, Point, partial_sums
from pipeline.last_layer.views import Views
from pipeline.params.fit import FitParams
from pipeline.project import Reference

if TYPE_CHECKING:
    from pipeline.compute.engine import Cluster


@dataclass(frozen=True)
class _Work:
    """The work, as it is sent to another process.

    Attributes:
        reference: erm and features.
        on: name of the device.
    """

    reference: Reference
    params: FitParams
    on: str

    @contextmanager
    def open(self) -> Iterator[Callable[[range, Point], PartialSums]]:
        with self.reference.open() as given:
            views = Views.of(given.file("features"), self.params, device.pick(self.on))
            classes = given.model("erm").head().bias.shape[-1]
            yield partial_sums(mac.prepared(views, self.params)[0], classes)


def spread(
    cluster: "Cluster", reference: Reference, params: FitParams, on: str
) -> AbstractContextManager[Elsewhere]:
    """Workers that compute the partial sums of fits with `params`.

    They share the memory of their machines, so none has all features in its own.

    Args:
        reference: erm and features.
        on: name of the workers' device.
    """
    streamed = params.model_copy(update={"memory": "streamed"})
    return cluster.keeping("retrain", _Work(reference, streamed, on))
