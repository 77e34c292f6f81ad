"""What git and DVC are to leave alone in a project.

DVC hides from git what it has made itself; the list is whole from the start, so that nothing of it gets into
git without DVC, or before it has run.
"""

from pathlib import Path

from pipeline.errors import MacError, first_line
from pipeline.graph import STAGES

# What is written into data/ and is no output of a stage: lists, and the folders of trackers and FiftyOne.
_LISTS = ("prepare_errors.csv", "prepare_duplicates.csv")
_KEPT = ("tensorboard", "mlflow", "fiftyone")
_TEMPLATES = Path(__file__).parent / "project"
_FOLDERS = {"main": "", "comparison": "comparison/", "study": "study/"}


def texts() -> dict[str, str]:
    """The text of each file that the repository has too, by its name."""
    hidden = {f"data/{folder}.gitignore": _of(pipeline) for pipeline, folder in _FOLDERS.items()}
    return {".dvcignore": _template("dvcignore") + "".join(f"data/{name}/\n" for name in _KEPT), **hidden}


def completed(folder: Path, with_dvc: bool) -> dict[str, tuple[str, list[str]]]:
    """The files of a project that lack lines: the whole text and these lines, by the name of the file.

    Args:
        folder: the project's; it may not be there yet.
        with_dvc: whether it is a DVC project. If not, it gets no .dvcignore.

    Raises:
        MacError: a file cannot be read.
    """
    found = {}
    for name, text in {".gitignore": _template("gitignore"), **texts()}.items():
        file = folder / name
        if name == ".dvcignore" and not with_dvc:
            continue
        try:
            there = file.read_text(encoding="utf-8") if file.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise MacError(f"{file}: cannot be read ({first_line(error)})") from None
        if new := [line for line in text.splitlines() if line not in there.splitlines()]:
            found[name] = ("\n".join([*there.splitlines(), *new, ""]), new)
    return found


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _of(pipeline: str) -> str:
    """The outputs of a pipeline's stages; git keeps metrics."""
    paths: list[str] = []
    for stage in STAGES:
        if stage.pipeline == pipeline:
            made = [kind.path for kind in stage.makes if kind.form != "metrics"]
            paths += [path.removeprefix(_FOLDERS[pipeline]) for path in made]
    return "".join(f"/{path}\n" for path in [*paths, *((*_LISTS, *_KEPT) if pipeline == "main" else ())])
