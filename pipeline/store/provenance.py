"""What an artefact was made from: parameters, artefacts, digests."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.store.files import regular

VERSION = 2  # version of the artefacts' layout


@dataclass(frozen=True)
class Provenance:
    """The parameters and the artefacts that an artefact was made with.

    Attributes:
        params: the parameters that it depends on.
        made_from: the digest of each artefact (or file) that it was computed from.
        digest: sha256 of its own contents.
    """

    params: Mapping[str, Any]
    made_from: Mapping[str, str]
    digest: str

    @classmethod
    def checked(cls, params: object, made_from: object, digest: str) -> "Provenance":
        """From values that a file says.

        Raises:
            ValueError: they are not what was written.
        """
        if not isinstance(params, Mapping):
            raise ValueError("params should be a mapping")
        if not isinstance(made_from, Mapping) or not all(
            isinstance(each, str) for each in made_from.values()
        ):
            raise ValueError("made_from should be a mapping of names to digests")
        return cls(params, made_from, digest)


def digest_of(*parts: object) -> str:
    """sha256 of JSON-able values, as hex: the fingerprint of a computation."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def file_digest(path: Path, start: int = 0) -> str:
    """sha256 of a file's bytes from `start` on, as hex.

    Raises:
        MacError: it is no regular file.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with regular(path) as file:
        file.seek(start)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
