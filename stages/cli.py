"""The `mac` command. Subcommands are imported when they are called, so that none pays for another's libraries."""

import gc
import importlib
import logging
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from pipeline.errors import MacError

COMMANDS = {
    "init": "write a params.yaml to start from",
    "download": "a published dataset from its official place",
    "demo": "paint the demo dataset",
    "prepare": "raw images -> images.h5",
    "train": "images.h5 -> erm/",
    "saliency": "images.h5, erm/ -> masks.h5",
    "features": "images.h5, erm/, masks.h5 -> features.h5",
    "retrain": "features.h5, erm/ -> retrained/",
    "evaluate": "ERM and MaC side by side on the test split",
    "baselines": "other last-layer methods on the same features",
    "sweep": "every alpha and beta at once",
    "jtt": "Just Train Twice, to compare with",
    "masktune": "MaskTune, to compare with",
    "ablation": "MaC with random and with true masks",
    "examples": "the pictures of the report",
    "report": "the page that says whether it is worth it",
    "inspect": "what is in an artefact",
    "explain": "where both heads look in an image, as a picture",
    "predict": "classes and probabilities of image files",
    "export": "the classifier as one file: ONNX, TorchScript, safetensors",
    "doctor": "whether this machine and these parameters will do",
    "clean": "what unfinished runs left behind",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"stages.{name}").command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands' names, for the Tab key, without importing any of them."""
        names = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MacError as error:
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            click.echo("Interrupted; the same command continues where it was.", err=True)
            sys.exit(130)
        finally:
            gc.freeze()  # nothing is collected at exit, which takes half a second once torch is imported


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mac-robust")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on standard error.")
def main(quiet: bool) -> None:
    """MaC: image classifiers robust to spurious correlations, by masking and combining.

    The stages read params.yaml and run in the order listed; `dvc repro` runs those that are out of date.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("mac").setLevel(logging.WARNING if quiet else logging.INFO)  # libraries speak of trouble alone
