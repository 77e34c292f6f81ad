"""Was an artefact made with the parameters that params.yaml has?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import MacError

_NOTHING = "nothing"


def require_made_with(
    path: Path, stated: Mapping[str, Any], wanted: Mapping[str, Any], remedy: str, whole: bool = False
) -> None:
    """Raise an error if an artefact was made with another value of a parameter.

    Args:
        path: the artefact.
        stated: the parameters that it states, by block, such as `{"retrain": {"lr": 0.1}}`; or by dotted key.
        wanted: the same of params.yaml.
        remedy: what to do.
        whole: whether a parameter counts that only one of the two has.

    Raises:
        MacError: names the first such parameter.
    """
    found, should = _dotted(stated), _dotted(wanted)
    for key in should | found:
        if not whole and not (key in found and key in should):
            continue
        one, other = (each.get(key, _NOTHING) for each in (found, should))
        if one != other:
            raise MacError(
                f"{path}: was made with other {key} ({one}) than params.yaml has ({other}); {remedy}"
            )


def _dotted(blocks: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for block, values in blocks.items():
        if isinstance(values, Mapping) and "." not in block:
            found |= {f"{block}.{key}": value for key, value in values.items()}
        else:
            found[block] = values
    return found
