"""The frame of a stage that computes: read params.yaml, pick the device, record the time, print what there is to print."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click
import torch

from pipeline import params
from pipeline.compute.device import keep_freed_memory, pick
from pipeline.params import Params
from stages.common import Layout, data_option, device_option, params_option, recorded

Stage = Callable[[Callable[..., str | None]], click.Command]
Options = Callable[[Callable[..., None]], Callable[..., None]]


@dataclass(frozen=True)
class Run:
    """What a stage is called with."""

    layout: Layout
    params: Params
    on: torch.device


def stage(name: str, options: Options = lambda command: command) -> Stage:
    """Make `mac <name>` of a function; its docstring is the help, and what it returns is printed.

    Args:
        options: a decorator that adds further options, which the function then takes by name.
    """

    def decorate(function: Callable[..., str | None]) -> click.Command:
        @wraps(function)
        def on_device(layout: Layout, params: Params, device: str, **further: Any) -> str | None:
            on = pick(device)
            with recorded(layout, name, on.type):
                return function(Run(layout, params, on), **further)

        return command_of(on_device, name, options)

    return decorate


def command_of(function: Callable[..., str | None], name: str, options: Options) -> click.Command:
    """`mac <name>` that calls `function(layout, params, device, **further options)`, the device as it was named."""

    @click.command(name, help=function.__doc__)
    @params_option
    @data_option
    @device_option
    @options
    def command(params_path: Path, data: Path, device: str, **further: Any) -> None:
        keep_freed_memory()
        text = function(Layout(data), params.load(params_path), device, **further)
        if text:
            click.echo(text)

    return command
