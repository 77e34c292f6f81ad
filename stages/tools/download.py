"""mac download: fetch a published dataset from its official place."""

from pathlib import Path

import click

# Those of pipeline.tools.download, which torchvision's import would make slow to list.
NAMES = ["waterbirds", "celeba", "mnist", "fashion_mnist", "cifar10"]


@click.command("download")
@click.argument("name", type=click.Choice(NAMES))
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder to put it in.  [default: where its preset looks]",
)
@click.option("--mirror", metavar="URL", help="Another server's folder that holds the same files.")
def command(name: str, folder: Path | None, mirror: str | None) -> None:
    """Fetch, check and unpack a dataset. Run again, it continues where it was cut off."""
    from pipeline.tools.download import download

    click.echo(f"{name} is in {download(name, folder, mirror)}")
