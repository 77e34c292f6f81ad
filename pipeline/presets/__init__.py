"""A params.yaml for every dataset of the field, with the paper's settings where it has any.

`common.yaml` has every key. The file of a preset has only the lines that differ: from it, or from another
preset that a line `# based on: <name>` at its top names.
"""

import io
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.nodes import Node
from ruamel.yaml.representer import RoundTripRepresenter

from pipeline import params_file
from pipeline.errors import MacError
from pipeline.store.files import write_text

_FOLDER = Path(__file__).parent
_COMMON = "common"
_BASED_ON = "# based on: "

# The lines of a file by block and key. The line that opens a block has the key "".
_Blocks = dict[str, dict[str, list[str]]]


def summaries() -> dict[str, str]:
    """What each preset is for: the first line of its file, `# <name>: <summary>`."""
    found = {}
    for file in sorted(_FOLDER.glob("*.yaml")):
        if file.stem != _COMMON:
            first = file.read_text(encoding="utf-8").partition("\n")[0]
            found[file.stem] = first.removeprefix(f"# {file.stem}: ")
    return found


def text(name: str) -> str:
    """The whole params.yaml of a preset, with its comments.

    Raises:
        MacError: no such preset.
    """
    if name not in summaries():
        raise MacError(f"no preset {name!r}; there are {', '.join(summaries())}")
    head, blocks = _merged(name)
    whole = head + _read(_COMMON)[0]
    for lines in blocks.values():
        for of_key in lines.values():
            whole += of_key
    return "\n".join(whole) + "\n"


def _merged(name: str) -> tuple[list[str], _Blocks]:
    """The comments at the top of a preset's file, and all lines by block and key."""
    head, own = _read(name)
    based_on = [line.removeprefix(_BASED_ON) for line in head if line.startswith(_BASED_ON)]
    blocks = _merged(based_on[0])[1] if based_on else _read(_COMMON)[1]
    for block, lines in own.items():
        blocks[block] |= lines
    return head, blocks


def lines_of(name: str | None) -> Mapping[str, Mapping[str, list[str]]]:
    """The lines of a preset, or of `common.yaml`, by block and key; that of a block itself has the key ""."""
    return _merged(name)[1] if name else _read(_COMMON)[1]


def _read(name: str) -> tuple[list[str], _Blocks]:
    """The comments at the top of a file, and its lines by block and key."""
    head: list[str] = []
    blocks: _Blocks = {}
    block = key = ""
    for line in (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        indent = len(line) - len(line.lstrip())
        if line.startswith("#"):
            head.append(line)
        elif indent == 0:
            block = line.partition(":")[0]
            blocks[block] = {"": [line]}
        elif indent == 2:
            key = line.partition(":")[0].strip()
            blocks[block][key] = [line]
        else:
            blocks[block][key].append(line)
    return head, blocks


def write(name: str, file: Path, changes: list[str], replace: bool) -> list[str]:
    """Write a preset to `file`, with its comments.

    If a change names a network of timm, what its weights were made for is set too, where no change says
    otherwise: sizes, interpolation, the map that suits it, and that the weights are timm's.

    Args:
        changes: `key=value` each, a dotted key and a YAML value: `retrain.alpha=1`.
        replace: whether a file that is there may be replaced.

    Returns:
        The changes that were made besides.

    Raises:
        MacError: no such preset, a wrong key or value, or the file is there.
    """
    if file.exists() and not replace:
        raise MacError(f"{file}: is there already, and is kept; 'mac init --force' replaces it")
    whole, besides = changed(name, changes)
    write_text(file, whole)
    return besides


def changed(name: str, changes: list[str]) -> tuple[str, list[str]]:
    """The text of a preset with changes, and the changes that were made besides; as `write`.

    Raises:
        MacError: no such preset, or a wrong key or value.
    """
    whole, besides = text(name), _of_network(changes)
    return _changed(whole, besides + changes) if changes else whole, besides


def _of_network(changes: list[str]) -> list[str]:
    """What a network of timm that a change names was made for, as changes; without the keys of others."""
    given = {}
    for change in changes:
        key, _, value = change.partition("=")
        given[key.strip()] = value.strip()
    architecture = given.get("model.architecture", "")
    if not architecture.startswith("timm/"):
        return []
    from pipeline.network import timm_networks  # PyTorch takes a second

    config = timm_networks.data_config(architecture)
    side = params_file.from_yaml(
        given.get("dataset.input_size", str(config.input_size)), "dataset.input_size"
    )
    made_for: dict[str, object] = {
        "dataset.input_size": side,
        "dataset.interpolation": config.interpolation,
        "dataset.to_input": "center_crop",
        "saliency.method": "auto",
    }
    if not {"model.weights", "model.classifier"} & given.keys():
        made_for["model.weights"] = (
            timm_networks.PRETRAINED if timm_networks.has_weights(architecture) else "none"
        )
    if isinstance(side, int):  # else it is refused later
        made_for["dataset.stored_size"] = round(side * config.stored_size / config.input_size)
    return [f"{key}={value}" for key, value in made_for.items() if key not in given]


def _null(representer: RoundTripRepresenter, _value: None) -> Node:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _changed(whole: str, changes: list[str]) -> str:
    yaml = YAML()  # keeps comments and order
    yaml.preserve_quotes = True
    yaml.width = 1000
    yaml.representer.add_representer(type(None), _null)
    values = yaml.load(whole)
    for change in changes:
        dotted, equals, value = change.partition("=")
        *blocks, key = dotted.strip().split(".")
        if not equals or not key:
            raise MacError(f"{change}: expected key=value, such as retrain.alpha=1")
        block = values
        for name in blocks:
            if not isinstance(block.get(name), dict):
                raise MacError(f"{change}: no block {name}; the blocks are {', '.join(values)}")
            block = block[name]
        params_file.from_yaml(value, change)  # is not huge
        block[key] = yaml.load(value)
    params_file.parse(values, "changed parameters")
    out = io.StringIO()
    yaml.dump(values, out)
    return out.getvalue()
