"""mac new: a project of one's own."""

import json
import shlex
from pathlib import Path

import click

from pipeline import presets
from pipeline.errors import MacError, first_line
from pipeline.params_file import from_yaml
from stages import ignore_files, lock, own_project
from stages.echo import say
from stages.options import set_option
from stages.own_project import WEIGHTS


@click.command("new")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--preset", help="Preset to start from; 'mac init --list' lists them.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of the dataset, which stays where it is."
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Your trained classifier, with its head; it is copied into the project.",
)
@set_option
def command(
    folder: Path, preset: str | None, data: Path | None, checkpoint: Path | None, changes: tuple[str, ...]
) -> None:
    """Make a project in FOLDER: parameters, pipeline, and what git and DVC are to ignore.

    Without --preset it is `own-model` with --checkpoint, else `folder` with --data, else `demo`. No file that
    is there is replaced; what .gitignore and .dvcignore lack is added to them.
    """
    chosen = preset or ("own-model" if checkpoint else "folder" if data else "demo")
    wanted = list[str]()
    if folder.exists() and not folder.is_dir():
        raise MacError(f"{folder}: is no folder; choose another name")
    if data is not None:
        if not data.is_dir():
            raise MacError(f"{data}: no such folder; --data names that of the dataset")
        root = data.resolve()
        if root.is_relative_to(folder.resolve()):
            root = root.relative_to(folder.resolve())
        wanted.append(f"dataset.root={json.dumps(str(root), ensure_ascii=False)}")
    if checkpoint is not None:
        if not checkpoint.is_file():
            raise MacError(f"{checkpoint}: no such file; --checkpoint names that of a classifier")
        from pipeline.network.weights import state_dicts  # PyTorch takes a second

        state_dicts(checkpoint, "--checkpoint")
        name = f"{WEIGHTS}/{checkpoint.name}"
        wanted.append(f"model.classifier={json.dumps(name, ensure_ascii=False)}")
    params, besides = presets.changed(chosen, [*wanted, *changes])
    values = from_yaml(params, "params.yaml")
    made, painted = lock.installed(), own_project.is_painted(values)
    files = {"params.yaml": params, **own_project.generated(made, own_project.has_dvc(), painted)}
    sources = [each for each in (checkpoint, own_project.weights_of(values)) if each is not None]
    copies = {f"{WEIGHTS}/{each.name}": each for each in sources}
    if len(copies) < len(sources):
        raise MacError(f"{checkpoint}: the weights of preset {chosen} have this name too; rename the file")
    for path in [*files, *copies]:
        if (folder / path).exists():
            raise MacError(f"{folder / path}: is there already, and is kept; choose another folder")
    of_user = own_project.once(folder.resolve().name, chosen, made)
    kept = [name for name in of_user if (folder / name).exists()]
    files |= {name: text for name, text in of_user.items() if name not in kept}
    lacking = ignore_files.completed(folder, own_project.has_dvc())
    completed = [name for name in lacking if (folder / name).exists()]
    files |= {name: text for name, (text, _) in lacking.items()}
    try:
        version_control = own_project.write(folder, files, copies, own_project.has_dvc())
    except OSError as error:
        raise MacError(f"{folder}: cannot be written ({first_line(error)}); choose another folder") from None
    say(f"{folder}: a project of preset {chosen} ('mac init --list' says what the presets are for)")
    for name in kept:
        say(f"{folder / name}: was there, and is kept")
    for name in completed:
        say(f"{folder / name}: added {', '.join(lacking[name][1])}")
    if besides:
        say(f"set as the network wants it: {', '.join(besides)}")
    root = Path(values["dataset"]["root"])
    if not painted and not (folder / root).exists():
        say(f"the dataset belongs into {folder / root} (dataset.root in {folder / 'params.yaml'})")
    there = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    if version_control:
        say(version_control)
        say(f"next: {there}mac doctor && dvc repro")
    else:
        say("DVC is not installed: pip install 'mac-robust[dvc]', and 'mac upgrade' sets it up. Without it:")
        say(f"{there}{own_project.in_order(painted)}")
