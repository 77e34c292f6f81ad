"""mac.lock: which version made a project, and the digest of each stage's code, on which dvc.yaml depends."""

from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.compute.progress import log
from pipeline.errors import MacError, first_line
from pipeline.params_file import from_yaml
from pipeline.store.files import regular
from pipeline.tools.checks import Finding
from stages import LOCK, code

LARGEST = 100_000  # bytes; more than it ever has


class Lock(BaseModel):
    """What mac.lock holds. An empty one is that of no version.

    Attributes:
        version: of mac-robust.
        code: the digest of all its code.
        stages: the digest of each stage's code.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    version: str = "none"
    code: str = "none"
    stages: dict[str, str] = {}

    def differs(self, other: "Lock") -> list[str]:
        """The stages whose code is another there, or which are not there."""
        return [name for name, digest in self.stages.items() if other.stages.get(name) != digest]

    def text(self) -> str:
        """The file."""
        lines = [
            "# Which code makes what. 'mac upgrade' writes it; stages whose digest changes run again.",
            f"version: '{self.version}'",
            f"code: '{self.code}'",
            "stages:",
            *(f"  {name}: '{digest}'" for name, digest in self.stages.items()),
        ]
        return "\n".join(lines) + "\n"


def installed() -> Lock:
    """That of the installed version."""
    return Lock(version=version("mac-robust"), code=code.whole(), stages=code.digests())


def read(folder: Path) -> Lock | None:
    """The mac.lock in a folder; None if there is none.

    Raises:
        MacError: it cannot be read, or is none.
    """
    file = folder / LOCK
    if not file.exists():
        return None
    remedy = "restore it, or empty it and run 'mac upgrade'"
    try:
        with regular(file) as opened:
            values = from_yaml(opened.read(LARGEST).decode("utf-8"), str(file))
        return Lock.model_validate({} if values is None else values)
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise MacError(f"{file}: cannot be read ({str(error).splitlines()[0]}); {remedy}") from None


def finding(folder: Path) -> Finding:
    """Whether the installed code is that of the mac.lock in a folder, which has one."""
    try:
        lock = read(folder) or Lock()
    except MacError as error:
        return Finding("error", LOCK, first_line(error))
    if _is_current(lock):
        return Finding("ok", LOCK, f"mac-robust {lock.version}, as it is installed")
    found = f"written by mac-robust {lock.version}, here is {version('mac-robust')}"
    if other := installed().differs(lock):
        return Finding("error", LOCK, f"{found}, with other code of {', '.join(other)}", "run 'mac upgrade'")
    return Finding("warning", LOCK, f"{found}, with the same code of every stage", "run 'mac upgrade'")


def _is_current(lock: Lock) -> bool:
    """Whether it was written by this version, of this code."""
    return (lock.version, lock.code) == (version("mac-robust"), code.whole())


def require(name: str, folder: Path) -> None:
    """Refuse to run a stage, or `demo`, with other code than the mac.lock in a project's folder states.

    DVC would note the code in mac.lock as what made the result. If only other stages have new code, it is
    said. Without a mac.lock, as in the repository, DVC depends on the sources.

    Raises:
        MacError: the installed code of the stage is another.
    """
    lock = read(folder)
    if lock is None or _is_current(lock):
        return
    written = f"{folder / LOCK}: was written by mac-robust {lock.version}, here is {version('mac-robust')}"
    if lock.stages.get(name) != code.digest(name):
        raise MacError(f"{written}, with other code of stage {name}; run 'mac upgrade'")
    log.warning("%s, with the same code of stage %s; run 'mac upgrade'", written, name)
