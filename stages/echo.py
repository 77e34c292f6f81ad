"""Prints what commands say. Other people's text, such as the name of a class, cannot steer a terminal."""

import json
import logging
from typing import Any

import click

from pipeline.errors import printable


def say(text: object, newline: bool = True) -> None:
    """Print text on standard output. Line breaks stay; all else that is no visible character is escaped."""
    click.echo(printable(str(text), kept="\n"), nl=newline)


def say_json(value: Any) -> None:
    """Print a value as one line of JSON. What is no visible character is escaped, as JSON does it."""
    text = json.dumps(value, ensure_ascii=False)
    click.echo("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text))


class Formatter(logging.Formatter):
    """Lines of the log, escaped in the same way."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), kept="\n")
