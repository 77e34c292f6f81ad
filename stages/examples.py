"""Stage examples: images.h5, erm/, masks.h5, features.h5 -> examples.h5."""

from pipeline.examples import examples
from stages.on_device import Run, stage


@stage("examples")
def command(run: Run) -> None:
    """Draw the training images and run the network on the test images that the report shows."""
    layout = run.layout
    examples(layout.images, layout.erm, layout.masks, layout.features, layout.examples, run.params.examples, run.on)
