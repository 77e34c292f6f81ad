"""Timing of two sides in one process on the same data, and how it is told."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import click
import torch

device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
repeats_option = click.option("--repeats", default=5, show_default=True, help="Rounds; the median is told.")
precision_option = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of forward passes, on both sides.",
)


def synchronize(on: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if on.type == "cuda":
        torch.cuda.synchronize(on)


def seconds(function: Callable[[], object], on: torch.device) -> float:
    """Wall time of one call, the device's work included."""
    synchronize(on)
    start = time.perf_counter()
    function()
    synchronize(on)
    return time.perf_counter() - start


def medians(sides: Mapping[str, Callable[[], object]], on: torch.device, repeats: int, warm_up: int = 1) -> dict[str, float]:
    """Median seconds of each side; the sides take turns, so that what else the machine does falls on all of them."""
    for function in sides.values():
        for _ in range(warm_up):
            function()
    rounds = [{name: seconds(function, on) for name, function in sides.items()} for _ in range(repeats)]
    return {name: statistics.median(times[name] for times in rounds) for name in sides}


def tell(benchmark: str, on: torch.device, rows: list[tuple[str, str]], **figures: Any) -> None:
    """Print a table of what was measured, and last one line of JSON."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")
    rounded = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in figures.items()}
    click.echo(json.dumps({"benchmark": benchmark, "device": describe(on), **rounded}))


def describe(on: torch.device) -> str:
    """The device in words."""
    return torch.cuda.get_device_name(on) if on.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
