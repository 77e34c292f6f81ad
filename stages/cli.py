"""The `mac` command. A subcommand is imported only when it is called, because its libraries may be slow."""

import errno
import gc
import importlib
import logging
import os
import signal
import sys
import threading
from functools import partial
from typing import Any

import click
from click.shell_completion import CompletionItem

from pipeline.compute import torchrun
from pipeline.errors import MacError, first_line
from pipeline.graph import STAGES
from stages.echo import Formatter

# Threads that wait sleep, instead of spinning on a core that another program needs. OpenMP reads this as
# PyTorch is loaded, which the module of a command may do.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# The commands that are not stages, listed before and after the stages. Each is a module of `stages.tools`.
BEFORE = {
    "new": "make a project of your own in a folder",
    "upgrade": "bring a project up to date with the installed version",
    "init": "write a params.yaml to start from",
    "download": "fetch a published dataset from its official place",
    "demo": "paint the demo dataset",
}
AFTER = {
    "inspect": "show what is in an artefact",
    "whatif": "say what other values of alpha and beta would give, and change nothing",
    "diagnose": "say whether the method's assumption seems to hold here",
    "explain": "draw where two heads look in an image",
    "predict": "predict classes and probabilities of image files",
    "export": "write a classifier as one file: ONNX, TorchScript or safetensors",
    "fiftyone": "make a dataset of FiftyOne of all images, with masks, maps and both heads' answers",
    "doctor": "check this machine and these parameters before anything runs",
    "clean": "list or remove what unfinished runs left behind",
}
TOGETHER = {stage.name for stage in STAGES if stage.together}
COMMANDS = BEFORE | {stage.name: stage.about for stage in STAGES} | AFTER


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        made = {stage.name: stage for stage in STAGES}
        if name in made:
            stage = made[name]
            module = importlib.import_module("stages.study" if stage.repeated else "stages.frame")
            command: click.Command = module.command_of(stage)
        elif name in COMMANDS:
            command = importlib.import_module(f"stages.tools.{name}").command
        else:
            return None
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is called. Several processes would do the same, and write the same files."""
        name, command, rest = super().resolve_command(ctx, args)
        if torchrun.count() > 1 and name not in TOGETHER:
            raise MacError(f"{name}: runs in one process; start it without torchrun")
        return name, command, rest

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names of the commands, for the Tab key. No command is imported."""
        found = {name: text for name, text in COMMANDS.items() if name.startswith(incomplete)}
        names = [CompletionItem(name, help=text) for name, text in found.items()]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, partial(_terminate, os.getpid()))
        try:
            return super().invoke(ctx)
        except MacError as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # as in 'mac … | head': click ends in silence
                raise
            raise click.ClickException(_said(error)) from None
        except KeyboardInterrupt:
            click.echo("Interrupted; the same command continues where it was.", err=True)
            sys.exit(130)
        finally:
            gc.freeze()  # no garbage collection at exit: with torch, it takes half a second


def _terminate(process: int, *_: object) -> None:
    """End as after an error, so that no temporary file stays. SLURM sends this signal before it kills."""
    if os.getpid() != process:  # a forked worker has nothing to clean
        os._exit(143)
    click.echo("Terminated; the same command continues where it was.", err=True)
    sys.exit(143)


def _said(error: OSError) -> str:
    """One line for an error that the system raised: a mistake of no program, and often of no person."""
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return str(MacError(f"{where}{first_line(error)}"))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mac-robust")
@click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors on standard error.")
def main(quiet: bool) -> None:
    """MaC: image classifiers robust to spurious correlations, by masking and combining.

    The stages read params.yaml and run in the order of this list. `dvc repro` runs the stages that are out of
    date.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter("%(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    # Libraries report only problems.
    logging.getLogger("mac").setLevel(logging.WARNING if quiet else logging.INFO)
