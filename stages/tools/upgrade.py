"""mac upgrade: bring a project up to date with the installed version."""

from pathlib import Path

import click

from pipeline import params_file
from pipeline.errors import MacError, first_line
from pipeline.presets.upgrade import upgraded
from pipeline.store.files import write_text
from stages import LOCK, ignore_files, lock, own_project
from stages.echo import say


@click.command("upgrade")
@click.argument("folder", type=click.Path(path_type=Path), default=".")
def command(folder: Path) -> None:
    """Bring the project in FOLDER, or in this one, up to date with the installed version.

    It adds new keys to params.yaml with the values of the preset, turns those that are no more into comments,
    adds to .gitignore, .dvcignore and data/.gitignore what they lack, and writes dvc.yaml and mac.lock again.
    Keys within a value, as in dataset.options, stay as they are. If DVC was installed since 'mac new', it is
    set up. The command says what it changed, and which stages will run again.
    """
    old = lock.read(folder)
    if old is None:
        raise MacError(
            f"{folder / LOCK}: there is none, so no 'mac new' made this project; go to one that it made"
        )
    file = folder / "params.yaml"
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MacError(f"{file}: cannot be read ({first_line(error)})") from None
    new = upgraded(text, str(file))
    if new.added or new.dropped:
        write_text(file, new.text)
    for line in new.added:
        say(f"{file}: added {line}")
    for key in new.dropped:
        say(f"{file}: {key} is no parameter any more, and a comment now")
    params = params_file.load(file)  # a value that is wrong now is the user's to change
    here = lock.installed()
    if own_project.has_dvc() and not own_project.is_dvc(folder):
        say(own_project.set_up_dvc(folder))
    with_dvc, painted = own_project.is_dvc(folder), own_project.is_painted(params.values)
    for name, made in own_project.generated(here, with_dvc, painted).items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != made.encode():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, made)
            say(f"wrote {path}")
    for name, (whole, lines) in ignore_files.completed(folder, with_dvc).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / name, whole)
        say(f"{folder / name}: added {', '.join(lines)}")
    again = here.differs(old)
    if old.version != here.version:
        say(f"from mac-robust {old.version} to {here.version}")
    said = f"new code: {', '.join(again)}; 'dvc repro' runs these again, and what depends on their results"
    say(said if again else "the code of all stages is the same; none runs again for it")
