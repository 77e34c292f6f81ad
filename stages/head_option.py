"""The option of the commands that compare another head with ERM's."""

import click

from pipeline.tools.heads import MAC, OTHERS

head_option = click.option(
    "--model",
    "other",
    type=click.Choice(OTHERS),
    default=MAC,
    show_default=True,
    help="The head to compare with ERM's: MaC, or a method of data/baselines.",
)
