"""The seal of an HDF5 artefact: a user block with the digest of all bytes that follow.

HDF5 does not notice a flipped bit in the data, and a flipped bit in the structure can make it hang. So the
bytes are checked before HDF5 reads them.
"""

from pathlib import Path

from pipeline.errors import MacError
from pipeline.store.files import regular

SEAL = 512  # bytes of the HDF5 user block


def seal(digest: str) -> bytes:
    """The user block before the HDF5 data."""
    return f"MaC artefact; sha256 of what follows these {SEAL} bytes: {digest}\n".encode().ljust(SEAL, b"\0")


def sealed_digest(path: Path) -> str | None:
    """The digest that the file states; None if it has no seal."""
    with regular(path) as file:
        start = file.read(SEAL)
    digest = start.partition(b"bytes: ")[2][:64].decode("ascii", "replace")
    return digest if start == seal(digest) else None


def stated_digest(path: Path) -> str | None:
    """The digest that the file states; None if it has no seal, cannot be read, or is no regular file."""
    try:
        return sealed_digest(path)
    except (OSError, MacError):
        return None
