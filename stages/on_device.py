"""The frame of a stage that computes: read params.yaml, pick the device, record the time, print what there is to print."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from pipeline import params
from pipeline.device import keep_freed_memory, pick
from pipeline.params import Params
from stages.common import Layout, data_option, device_option, params_option, recorded

Stage = Callable[[Callable[..., str | None]], click.Command]


@dataclass(frozen=True)
class Run:
    """What a stage is called with."""

    layout: Layout
    params: Params
    on: torch.device


def stage(name: str, options: Callable[[Callable[..., None]], Callable[..., None]] = lambda command: command) -> Stage:
    """Make `mac <name>` of a function; its docstring is the help, and what it returns is printed.

    Args:
        options: a decorator that adds further options, which the function then takes by name.
    """

    def decorate(function: Callable[..., str | None]) -> click.Command:
        @click.command(name, help=function.__doc__)
        @params_option
        @data_option
        @device_option
        @options
        def command(params_path: Path, data: Path, device: str, **further: Any) -> None:
            keep_freed_memory()
            run = Run(Layout(data), params.load(params_path), pick(device))
            with recorded(run.layout, name, run.on.type):
                text = function(run, **further)
            if text:
                click.echo(text)

        return command

    return decorate
