"""Which HDF5 files were checked before: a note beside the file, until the file changes.

Checking reads a whole file, so it is done once.
"""

import os
import stat
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from secrets import token_hex

from pipeline.errors import MacError
from pipeline.store.files import replacing
from pipeline.store.provenance import VERSION, digest_of, file_digest
from pipeline.store.schema import Schema
from pipeline.store.seal import SEAL


def note_of(path: Path) -> Path:
    """The note beside a file: its state, and a digest of what was checked."""
    return path.with_name(f".{path.name}.verified")


def state_of(path: Path) -> str:
    """What changes with the file, and what nobody else can make up.

    The ctime is left out: it changes too when DVC makes a link of the file.
    """
    now = path.stat()
    return digest_of(now.st_size, now.st_mtime_ns, now.st_ino, _secret())


@cache
def _secret() -> str:
    """A secret of this user. Without a folder to keep it in, of this process."""
    new = token_hex()
    with suppress(OSError, MacError, RuntimeError, UnicodeDecodeError):  # RuntimeError: no home
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mac-robust", "secret")
        if not path.exists():
            with replacing(path) as temporary:
                temporary.touch(0o600)
                temporary.write_text(new)
        return path.read_text()
    return new


@lru_cache(maxsize=16)
def digest_in(path: Path, _state: str) -> str:
    """The digest of a file in this state: what is stated of it and what is opened is read once."""
    return file_digest(path, SEAL)


def remember(path: Path, schema: Schema, state: str) -> None:
    """Note beside the file that its contents are checked. They are read again only if it changes."""
    note = note_of(path)
    with suppress(OSError):  # without the note, the contents are read every time
        note.unlink(missing_ok=True)  # it may be a link that came with the file
        with note.open("x") as new:
            new.write(f"{state}\n{_checks(schema)}")


def is_remembered(path: Path, state: str, schema: Schema | None = None) -> bool:
    """Whether the file's bytes were checked in this state; and its values, if a schema is given."""
    try:
        if not stat.S_ISREG(note_of(path).lstat().st_mode):
            return False
        noted, _, checks = note_of(path).read_text().partition("\n")
        return noted == state and (schema is None or checks == _checks(schema))
    except (OSError, UnicodeDecodeError):
        return False


def _checks(schema: Schema) -> str:
    """Another text if anything else is checked."""
    return digest_of(VERSION, list(map(repr, schema.items())))
