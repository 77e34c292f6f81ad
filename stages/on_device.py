"""The frame of a stage that computes: read params.yaml, pick the device, record the time, print what there is to print."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from pipeline import params
from pipeline.device import keep_freed_memory, pick
from pipeline.params import Params
from stages.common import Layout, data_option, device_option, params_option, recorded


@dataclass(frozen=True)
class Run:
    """What a stage is called with."""

    layout: Layout
    params: Params
    on: torch.device


def stage(name: str) -> Callable[[Callable[[Run], str | None]], click.Command]:
    """Make `mac <name>` of a function; its docstring is the help, and what it returns is printed."""

    def decorate(function: Callable[[Run], str | None]) -> click.Command:
        @click.command(name, help=function.__doc__)
        @params_option
        @data_option
        @device_option
        def command(params_path: Path, data: Path, device: str) -> None:
            execute(name, function, params_path, data, device)

        return command

    return decorate


def execute(name: str, function: Callable[[Run], str | None], params_path: Path, data: Path, device: str) -> None:
    """Call the function of a stage."""
    keep_freed_memory()
    run = Run(Layout(data), params.load(params_path), pick(device))
    with recorded(run.layout, name, run.on.type):
        text = function(run)
    if text:
        click.echo(text)
