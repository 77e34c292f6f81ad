"""What git and DVC are to leave alone in a project.

DVC hides from git what it has made itself; the list is whole from the start, so that nothing of it gets into
git without DVC, or before it has run.
"""

from pathlib import Path

from pipeline.errors import MacError, first_line
from pipeline.graph import STAGES
from pipeline.store.files import write_text

# What is written into data/ and is no output of a stage: lists, and what trackers and FiftyOne keep.
BESIDE = ("prepare_errors.csv", "prepare_duplicates.csv", "tensorboard", "mlflow", "fiftyone")
_DVC = Path(__file__).parent / "project/dvcignore"
_FOLDERS = {"main": "", "comparison": "comparison/", "study": "study/"}


def texts() -> dict[str, str]:
    """The text of each file, by its name in a project."""
    hidden = {f"data/{folder}.gitignore": _of(pipeline) for pipeline, folder in _FOLDERS.items()}
    return {".dvcignore": _DVC.read_text(encoding="utf-8"), **hidden}


def complete(folder: Path, with_dvc: bool) -> dict[str, list[str]]:
    """Add to the files in a folder the lines that they lack; these lines, by the names of the files.

    Args:
        with_dvc: whether it is a DVC project. If not, it gets no .dvcignore.

    Raises:
        MacError: a file cannot be read.
    """
    added = {}
    for name, text in texts().items():
        file = folder / name
        if name == ".dvcignore" and not with_dvc:
            continue
        try:
            there = file.read_text(encoding="utf-8") if file.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise MacError(f"{file}: cannot be read ({first_line(error)})") from None
        if new := [line for line in text.splitlines() if line not in there.splitlines()]:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, "\n".join([*there.splitlines(), *new, ""]))
            added[name] = new
    return added


def _of(pipeline: str) -> str:
    """The outputs of a pipeline's stages; git keeps metrics."""
    paths: list[str] = []
    for stage in STAGES:
        if stage.pipeline == pipeline:
            made = [kind.path for kind in stage.makes if kind.form != "metrics"]
            paths += [path.removeprefix(_FOLDERS[pipeline]) for path in made]
    return "".join(f"/{path}\n" for path in [*paths, *(BESIDE if pipeline == "main" else ())])
