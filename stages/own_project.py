"""A project of one's own: the files that `mac new` writes into a folder, and `mac upgrade` writes again."""

import logging
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.demo import weights
from pipeline.errors import MacError, first_line
from pipeline.graph import STAGES
from pipeline.store.files import write_text
from stages import LOCK, PAINTED, dvc_files
from stages.lock import Lock

TEMPLATES = Path(__file__).parent / "project"
WEIGHTS = "data/weights"
# The files that are written once, and then are the user's: by their names in a project, those in TEMPLATES.
_ONCE = {
    "README.md": "README.md",
    "data/external_masks/README.md": "external_masks.md",
    "data/external_masks/.gitignore": "external_masks.gitignore",
    "data/raw/.gitignore": "raw.gitignore",
    f"{WEIGHTS}/.gitignore": "weights.gitignore",
}
# DVC's own choice copies each artefact into its cache.
_CACHE = "[cache]\n    type = reflink,hardlink,symlink,copy\n"


def generated(lock: Lock, with_dvc: bool, painted: bool) -> dict[str, str]:
    """The text of each file that depends on the version alone.

    Args:
        with_dvc: whether the folder is a DVC project, which `dvc init` makes of no folder that has a `.dvc`.
        painted: whether the dataset is the demo that `mac demo` paints.
    """
    files = {file: dvc_files.text(pipeline, locked=True) for pipeline, file in dvc_files.FILES.items()}
    if with_dvc:
        files[".dvc/plots/sweep.json"] = _template("sweep.json")
    if painted:
        files[dvc_files.RAW] = dvc_files.raw(locked=True)
    return files | {LOCK: lock.text()}


def once(name: str, preset: str, lock: Lock) -> dict[str, str]:
    """The text of each file that is the user's from then on, but for those of `ignore_files`."""
    files = {file: _template(template) for file, template in _ONCE.items()}
    files["README.md"] = files["README.md"].format(name=name, preset=preset, version=lock.version)
    return files


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def is_painted(values: Any) -> bool:
    """Whether parameters ask for the demo that `mac demo` paints."""
    return bool(values["dataset"]["root"] == PAINTED)


def weights_of(values: Any) -> Path | None:
    """The file in this package that the parameters name as weights, if they do: the demo's."""
    return weights.FILE if values["model"]["weights"] == f"{WEIGHTS}/{weights.FILE.name}" else None


def is_dvc(folder: Path) -> bool:
    """Whether a folder is a DVC project."""
    return (folder / ".dvc").is_dir()


def has_dvc() -> bool:
    """Whether DVC is installed."""
    return find_spec("dvc") is not None


def write(folder: Path, files: Mapping[str, str], copies: Mapping[str, Path], with_dvc: bool) -> str | None:
    """Write a project, all of it or nothing; what was done for DVC, in words.

    Args:
        files: the texts of files, by their names in the project.
        copies: what to copy, by the names in the project.
        with_dvc: whether to make it a DVC project. This comes first: DVC refuses a folder that has a `.dvc`.

    Raises:
        MacError: DVC refuses.
        OSError: the folder cannot be written.
    """
    with ExitStack() as undo:
        _make_folder(folder, undo)
        said = _init_dvc(folder, undo) if with_dvc else None
        for name in [*files, *copies]:
            _make_folder((folder / name).parent, undo)
            _put_back(folder / name, undo)
            if name in files:
                write_text(folder / name, files[name])
            else:
                shutil.copyfile(copies[name], folder / name)
        undo.pop_all()
    return said


def _make_folder(path: Path, undo: ExitStack) -> None:
    for each in reversed([path, *path.parents]):
        if not each.exists():
            each.mkdir()
            undo.callback(each.rmdir)


def _put_back(path: Path, undo: ExitStack) -> None:
    if path.exists():
        undo.callback(path.write_bytes, path.read_bytes())
    else:
        undo.callback(path.unlink, missing_ok=True)


def set_up_dvc(folder: Path) -> str:
    """Make a project that was made without DVC a DVC project; what was done, in words.

    Raises:
        MacError: DVC refuses.
    """
    with ExitStack() as undo:
        said = _init_dvc(folder, undo)
        undo.pop_all()
    return said


def _init_dvc(folder: Path, undo: ExitStack) -> str:
    """Make a folder a DVC project, if it is none; what was done, in words."""
    if is_dvc(folder):
        return "it is a DVC project already"
    from dvc.exceptions import DvcException  # an extra
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.WARNING)  # else it says what is said here
    inside = next((each for each in folder.resolve().parents if (each / ".git").exists()), None)
    options, said = {"no_scm": True}, "without git, DVC compares no commits ('dvc init --no-scm')"
    if (folder / ".git").exists():
        options, said = {}, "DVC is set up in its git repository ('dvc init')"
    elif inside is not None:
        options, said = (
            {"subdir": True},
            f"DVC is set up below the git repository {inside} ('dvc init --subdir')",
        )
    _put_back(folder / ".dvcignore", undo)
    undo.callback(shutil.rmtree, folder / ".dvc", ignore_errors=True)
    try:
        Repo.init(str(folder), **options).close()
    except DvcException as error:
        reason = first_line(error)
        raise MacError(
            f"{folder}: 'dvc init' fails ({reason}); mend this, and run the command again"
        ) from None
    with (folder / ".dvc/config").open("a", encoding="utf-8") as file:
        file.write(_CACHE)
    return said


def in_order(painted: bool) -> str:
    """The commands that do what `dvc repro` does."""
    stages = [f"mac {each.name}" for each in STAGES if each.pipeline == "main"]
    return " && ".join([*([f"mac demo {PAINTED}"] if painted else []), *stages])
