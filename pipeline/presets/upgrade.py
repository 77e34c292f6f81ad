"""Brings the text of an older params.yaml up to date. Values and comments stay as they are."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode

from pipeline import params_file
from pipeline.errors import MacError
from pipeline.presets import lines_of, summaries

_PRESET = re.compile(r"# ([\w-]+): ")


@dataclass
class Upgraded:
    """A params.yaml with all keys of this version, each `block.key`, and no other ones.

    Keys within a value are as they were: those of dataset.options are the reader's, and most have defaults.
    `params_file.load` refuses those that are wrong.

    Attributes:
        text: the file.
        added: the lines that are new, as `block.key: value`, with their comments.
        dropped: the keys that are no more, such as `train.warmup`; their lines are comments now.
    """

    text: str
    added: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def upgraded(text: str, where: str) -> Upgraded:
    """Add the keys that are missing, with the values of the preset that the first line names.

    Without such a line, they are those of `common.yaml`.

    Args:
        text: params.yaml.
        where: starts the error line.

    Raises:
        MacError: it is no YAML, or not a mapping of blocks; or keys are missing from a block in braces.
    """
    values = params_file.from_yaml(text, where)
    root = YAML(typ="safe", pure=True).compose(text)
    if not isinstance(values, dict) or not isinstance(root, MappingNode) or root.flow_style:
        raise MacError(f"{where}: is no file of parameters; 'mac init --list' lists those to start from")
    named = _PRESET.match(text)
    defaults = lines_of(named[1] if named and named[1] in summaries() else None)
    made = Upgraded(text)
    lines = text.splitlines()
    ends = _ends(root, lines, len(lines))
    after: dict[int, list[str]] = {}
    for key, node in root.value:
        block = key.value
        if block not in defaults:
            made.dropped.append(block)
            _comment_out(lines, key.start_mark.line, ends[block])
        else:
            inner = node if isinstance(node, MappingNode) else None
            found = values[block]
            _upgrade_block(made, where, block, inner, found, defaults[block], lines, ends[block], after)
    for block, default in defaults.items():
        if block not in values:
            for key, of_key in default.items():
                after.setdefault(len(lines), []).extend(of_key)
                made.added += [_said(block, of_key)] if key else []
    whole = list(after.get(0, []))
    for number, line in enumerate(lines, 1):
        whole += [line, *after.get(number, [])]
    made.text = "\n".join(whole) + "\n"
    return made


def _upgrade_block(
    made: Upgraded,
    where: str,
    block: str,
    node: MappingNode | None,
    values: object,
    default: Mapping[str, list[str]],
    lines: list[str],
    end: int,
    after: dict[int, list[str]],
) -> None:
    """Note the lines that a block wants in `after`, by the number of lines before them."""
    missing = [key for key in default if key and (not isinstance(values, dict) or key not in values)]
    if values is None:  # the block has no keys
        after.setdefault(end, []).extend(chain.from_iterable(default[key] for key in missing))
        made.added += [_said(block, default[key]) for key in missing]
        return
    if node is None or node.flow_style:
        if missing:
            raise MacError(
                f"{where}: {block}: write each key on a line of its own, and run 'mac upgrade' again; "
                f"missing are {', '.join(missing)}"
            )
        return
    ends = _ends(node, lines, end)
    place, indent = node.value[0][0].start_mark.line, " " * node.value[0][0].start_mark.column
    for key, of_key in default.items():
        if key in missing:
            after.setdefault(place, []).extend(indent + line[2:] for line in of_key)
            made.added.append(_said(block, of_key))
        elif key in ends:
            place = ends[key]
    for key, _ in node.value:
        if key.value not in default and key.value != "<<":
            made.dropped.append(f"{block}.{key.value}")
            _comment_out(lines, key.start_mark.line, ends[key.value])


def _ends(node: MappingNode, lines: list[str], end: int) -> dict[str, int]:
    """The number of the lines up to the last one of each key; comments above the next key are not its own."""
    starts = [key.start_mark.line for key, _ in node.value]
    found = {}
    for (key, _), following in zip(node.value, [*starts[1:], end], strict=True):
        while following > key.start_mark.line + 1 and _is_comment(lines[following - 1]):
            following -= 1
        found[key.value] = following
    return found


def _is_comment(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _comment_out(lines: list[str], start: int, end: int) -> None:
    for number in range(start, end):
        lines[number] = f"# {lines[number]}"


def _said(block: str, of_key: list[str]) -> str:
    return f"{block}.{' '.join(' '.join(of_key).split())}"
