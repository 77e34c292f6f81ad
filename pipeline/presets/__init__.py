"""A params.yaml for every dataset of the field: one commented file each, beside this module, the paper's settings where it has any."""

import io
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import params
from pipeline.errors import MacError
from pipeline.store.files import write_text

_FOLDER = Path(__file__).parent


def summaries() -> dict[str, str]:
    """What each preset is for: the first line of its file, `# <name>: <summary>`."""
    first_lines = (file.read_text(encoding="utf-8").partition("\n")[0] for file in sorted(_FOLDER.glob("*.yaml")))
    return dict(line.removeprefix("# ").split(": ", 1) for line in first_lines)


def write(name: str, file: Path, changes: list[str], replace: bool) -> None:
    """Write a preset to `file`, comments and all.

    Args:
        changes: `key=value` each, a dotted key and a YAML value: `retrain.alpha=1`.
        replace: whether a file that is there may be replaced.

    Raises:
        MacError: no such preset, a wrong key or value, or the file is there.
    """
    if name not in summaries():
        raise MacError(f"no preset {name!r}; there are {', '.join(summaries())}")
    if file.exists() and not replace:
        raise MacError(f"{file}: is there already; --force replaces it, --params writes to another file")
    text = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    write_text(file, _changed(text, changes) if changes else text)


def _changed(text: str, changes: list[str]) -> str:
    yaml = YAML()  # keeps comments and order
    yaml.preserve_quotes = True
    yaml.width = 1000
    values = yaml.load(text)
    for change in changes:
        dotted, equals, value = change.partition("=")
        *blocks, key = dotted.strip().split(".")
        if not equals or not key:
            raise MacError(f"--set {change}: expected key=value, such as retrain.alpha=1")
        block = values
        for name in blocks:
            if not isinstance(block.get(name), dict):
                raise MacError(f"--set {change}: no block {name}; the blocks are {', '.join(values)}")
            block = block[name]
        try:
            block[key] = yaml.load(value)
        except YAMLError as error:
            raise MacError(f"--set {change}: is not YAML ({' '.join(str(error).split())})") from None
    params.parse(values, "--set")
    out = io.StringIO()
    yaml.dump(values, out)
    return out.getvalue()
