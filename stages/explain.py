"""mac explain: where both heads look in an image, as a picture."""

from pathlib import Path

import click

from pipeline import store
from pipeline.compute.device import pick
from pipeline.tools import prediction
from stages.common import Layout, data_option, device_option


@click.command("explain")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="PNG file to write.")
@click.option("--target", help="Class that the maps explain.  [default: what MaC sees]")
@click.option("--top-k", type=click.FloatRange(min=0, min_open=True), help="K of the core.  [default: that of masks.h5]")
@data_option
@device_option
def command(images: tuple[Path, ...], out: Path, target: str | None, top_k: float | None, data: Path, device: str) -> None:
    """Draw, for each of IMAGES, the maps of ERM and MaC, the core, and the probabilities of both."""
    layout = Layout(data)
    if top_k is None:
        with store.open_artefact(layout.masks, "masks") as masks:
            top_k = masks.provenance.params["top_k"]
    pair = prediction.Pair.load(layout.erm, layout.retrained, pick(device))
    picture = prediction.explain(pair, images, top_k, target)
    with store.replacing(out) as temporary:
        picture.save(temporary, "PNG")
    click.echo(out)
