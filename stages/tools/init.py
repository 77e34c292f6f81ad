"""mac init: write a params.yaml to start from."""

from pathlib import Path

import click

from pipeline import presets
from stages.echo import say
from stages.options import set_option
from stages.outputs import check_output


def _list(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        formatter = click.HelpFormatter()
        formatter.write_dl(list(presets.summaries().items()))
        say(formatter.getvalue(), newline=False)
        context.exit()


@click.command("init")
@click.argument("preset")
@set_option
@click.option(
    "--params",
    "file",
    type=click.Path(path_type=Path),
    default="params.yaml",
    show_default=True,
    help="File to write.",
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list,
    help="List the presets.",
)
def command(preset: str, changes: tuple[str, ...], file: Path, force: bool) -> None:
    """Write the params.yaml of PRESET. A comment gives the source of every value."""
    check_output(file)
    besides = presets.write(preset, file, list(changes), force)
    if besides:
        say(f"set as the network wants it: {', '.join(besides)}")
    say(f"wrote {file}; next: dvc repro")
