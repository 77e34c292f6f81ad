"""What bfloat16 does to the masks and to the result: a finished project's saliency, features and retraining again in both precisions."""

import tempfile
from pathlib import Path

import click
import numpy as np

from benchmarks.measure import device_option, tell
from pipeline import params as parameters
from pipeline import store
from pipeline.compute.device import pick
from pipeline.evaluate import measure
from pipeline.features import features
from pipeline.params import Params, Precision
from pipeline.retrain import retrain
from pipeline.saliency import saliency
from stages.common import Layout, data_option, params_option

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


@click.command(help=__doc__)
@params_option
@data_option
@device_option
def main(params_path: Path, data: Path, device: str) -> None:
    on, chosen, of = pick(device), parameters.load(params_path), Layout(data)
    with tempfile.TemporaryDirectory(prefix="mac-benchmark-") as name:
        found = {}
        for precision in PRECISIONS:
            to = Layout(Path(name) / precision)
            masked, seen = _in(chosen, precision)
            saliency(of.images, of.erm, to.masks, masked, on, to.scratch)
            features(of.images, of.erm, to.masks, to.features, seen, on, to.scratch)
            retrain(to.features, of.erm, to.masks, to.retrained, chosen.retrain, on)
            found[precision] = to
        with store.open_artefact(found["float32"].masks, "masks") as exact, store.open_artefact(found["bfloat16"].masks, "masks") as rough:
            differ = [(exact["mask"][row] ^ rough["mask"][row]).mean() for row in range(len(exact["mask"]))]
            share = float(np.mean(differ))
            of_mask = share / float(exact["mask"][0].mean())
        tests = {name: measure(of.images, to.features, of.erm, to.retrained)[0]["mac"]["test"] for name, to in found.items()}
    worst = "worst_group" if "worst_group" in tests["float32"] else "worst_class"
    tell(
        "precision",
        on,
        [
            ("mask pixels that differ, of the image", f"{100 * share:.3f} %"),
            ("of the mask", f"{100 * of_mask:.3f} %"),
            ("most in one image", f"{100 * float(np.max(differ)):.3f} % of it"),
            *(
                (f"MaC, {worst.replace('_', ' ')}, {name}", f"{100 * m[worst]['mean']:.2f} ± {100 * m[worst]['std']:.2f} %")
                for name, m in tests.items()
            ),
            *((f"MaC, mean, {name}", f"{100 * m['raw_mean']['mean']:.2f} %") for name, m in tests.items()),
        ],
        share_of_pixels=share,
        share_of_mask=of_mask,
        **{f"worst_{name}": m[worst]["mean"] for name, m in tests.items()},
    )


def _in(chosen: Params, precision: Precision) -> tuple[parameters.SaliencyParams, parameters.FeaturesParams]:
    same = {"precision": precision}
    return chosen.saliency.model_copy(update={**same, "previews": 0}), chosen.features.model_copy(update=same)


if __name__ == "__main__":
    main()
