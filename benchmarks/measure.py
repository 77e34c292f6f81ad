"""How two sides are timed in one process on the same data, and how the result is printed."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import click
import torch

device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
repeats_option = click.option(
    "--repeats", default=5, show_default=True, help="How many times each side is timed; the median counts."
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the forward passes, on both sides.",
)


def synchronize(on: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if on.type == "cuda":
        torch.cuda.synchronize(on)


def seconds(function: Callable[[], object], on: torch.device) -> float:
    """Wall time of one call in seconds, with the device's work."""
    synchronize(on)
    start = time.perf_counter()
    function()
    synchronize(on)
    return time.perf_counter() - start


def noting_cpu(function: Callable[[], object], spent: list[float]) -> Callable[[], None]:
    """The function; each call adds its CPU time, of all threads of this process, in seconds."""

    def noted() -> None:
        start = time.process_time()
        function()
        spent.append(time.process_time() - start)

    return noted


def medians(
    sides: Mapping[str, Callable[[], object]], on: torch.device, repeats: int, warm_up: int = 1
) -> dict[str, float]:
    """Median wall time of each side in seconds.

    The sides take turns, so that whatever else the machine does slows all of them.

    Args:
        warm_up: how many times each side runs before it is timed.
    """
    for function in sides.values():
        for _ in range(warm_up):
            function()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, function in sides.items():
            times[name].append(seconds(function, on))
    return {name: statistics.median(measured) for name, measured in times.items()}


def tell(benchmark: str, on: torch.device, rows: list[tuple[str, str]], **figures: Any) -> None:
    """Print a table of what was measured, and then one line of JSON.

    Args:
        rows: of the table, a name and a value each.
        figures: what the JSON says beside the benchmark and the device.
    """
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")
    rounded = {name: _rounded(value) for name, value in figures.items()}
    click.echo(json.dumps({"benchmark": benchmark, "device": describe(on), **rounded}))


def _rounded(value: Any) -> Any:
    """A float to four digits; anything else as it is."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def describe(on: torch.device) -> str:
    """The device in words."""
    if on.type == "cuda":
        return torch.cuda.get_device_name(on)
    return f"{torch.get_num_threads()} CPU threads"
