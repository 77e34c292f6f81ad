"""What an artefact was made with and from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import MacError

VERSION = 1  # of the artefacts' layout
# Which command makes which artefact: every error names the remedy.
MADE_BY = {
    "images": "prepare",
    "erm": "train",
    "masks": "saliency",
    "features": "features",
    "retrained": "retrain",
    "examples": "examples",
    "jtt": "jtt",
    "masktune": "masktune",
}


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

    def require(self, kind: str, path: Path, made_from: Mapping[str, str]) -> None:
        """Raise MacError unless the artefact was made from exactly these digests."""
        for source, digest in made_from.items():
            found = self.made_from.get(source, "none")
            if found != digest:
                raise MacError(
                    f"{path}: was made from other {source} (digest {found[:12]}) than those here (digest {digest[:12]}); "
                    f"run 'mac {MADE_BY[kind]}' again"
                )


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
