"""mac download: fetch a published dataset from its official place."""

from pathlib import Path

import click

from stages.echo import say

# The names in pipeline.tools.download, which is slow to import because of torchvision.
NAMES = ["waterbirds", "celeba", "mnist", "fashion_mnist", "cifar10"]


@click.command("download")
@click.argument("name", type=click.Choice(NAMES))
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder to put it in.  [default: the folder in its preset]",
)
@click.option("--mirror", metavar="URL", help="URL of a folder on another server with the same files.")
def command(name: str, folder: Path | None, mirror: str | None) -> None:
    """Fetch, check and unpack a dataset. If it was interrupted, the same command continues."""
    from pipeline.tools.download import download

    say(f"{name} is in {download(name, folder, mirror)}")
