"""What an artefact was made with and from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = 2  # of the artefacts' layout


@dataclass(frozen=True)
class Provenance:
    """What an artefact was made with and from.

    Attributes:
        params: the parameters that shaped it.
        made_from: digest of each artefact (or file) that it was computed from.
        digest: sha256 of its own contents.
    """

    params: Mapping[str, Any]
    made_from: Mapping[str, str]
    digest: str


def digest_of(*parts: object) -> str:
    """sha256 of JSON-able values, as hex: the fingerprint of a computation."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(path: Path, start: int = 0) -> str:
    """sha256 of a file's bytes from `start` on, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
