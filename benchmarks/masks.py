"""Measure a new K: the stages masks and features, against all stages from saliency to features.

A new K, or another rule of masking, needs no maps and no features of originals again. Both sides make the
same masks.h5 and features.h5. The splits have the proportions of Waterbirds.
"""

import click

from benchmarks import project
from benchmarks.measure import device_option, medians, precision_option, repeats_option, tell
from benchmarks.project import MASKS, SIZE
from pipeline import graph
from pipeline.compute.context import Context
from pipeline.compute.device import keep_freed_memory, pick
from pipeline.params.block import Precision

VALIDATION, TEST = 1199 / 4795, 5794 / 4795  # images for each training image, as in Waterbirds


@click.command(help=__doc__)
@click.option("--architecture", default="mobilenet_v2", show_default=True)
@click.option("--rows", default=200, show_default=True, help="Training images.")
@click.option("--draws", default=2, show_default=True, help="R.")
@precision_option
@device_option
@repeats_option
def main(architecture: str, rows: int, draws: int, precision: Precision, device: str, repeats: int) -> None:
    on = pick(device)
    keep_freed_memory()
    params, other = project.caching(precision, draws), MASKS.model_copy(update={"top_k": 0.2})
    with project.folder() as folder:
        noise, context = graph.project(folder), Context(str(on), folder / "scratch")
        project.write_images(noise, rows, (round(VALIDATION * rows), round(TEST * rows)))
        project.write_erm(noise, architecture)

        def maps_and_originals() -> None:
            project.make_maps(noise, precision, context)
            project.make_originals(noise, precision, context)

        def masks() -> None:
            project.make_masks(noise, context, other)

        def features() -> None:
            project.make_features(noise, params, context)

        def everything() -> None:
            maps_and_originals()
            masks()
            features()

        def new_k() -> None:
            masks()
            features()

        sides = {"everything": everything, "new K": new_k, "masks": masks}
        times = medians(sides, on, repeats)
        masked = rows + round(VALIDATION * rows)
    tell(
        "masks",
        on,
        [
            ("network", f"{architecture}, {SIZE} px, {precision}, R = {draws}"),
            ("stages saliency, masks, originals, features", f"{times['everything']:.1f} s"),
            ("stages masks and features", f"{times['new K']:.1f} s"),
            ("stage masks alone", f"{times['masks']:.2f} s, {masked / times['masks']:.0f} masks/s"),
        ],
        ratio=times["everything"] / times["new K"],
        masks_per_second=masked / times["masks"],
        architecture=architecture,
        precision=precision,
    )


if __name__ == "__main__":
    main()
