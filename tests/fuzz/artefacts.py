"""Artefacts that lie: changed in their structure or values, and sealed again, so that every digest fits.

The artefacts are the made-up project's. None says what it was made from, so the others do not refuse it.
"""

import json
import os
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from safetensors.numpy import load_file, save_file

from pipeline import api, graph, params_file, store
from pipeline.errors import MacError
from pipeline.params.examples import ExamplesParams
from pipeline.params.study import StudyParams
from pipeline.project import Project
from pipeline.steps.examples import examples
from pipeline.store import models
from tests import cached, conftest, made_up, runs
from tests.fuzz.changes import mutate_csv, mutate_json, mutate_tensors, mutate_text
from tests.fuzz.hdf5 import mutate_hdf5
from tests.fuzz.running import Outcome, last, run

AS_IT_IS = -1  # the seed that changes nothing
SECRET = b"A secret of this machine.       " * 4096
HDF5 = ("images", "maps", "masks", "originals", "features", "examples")
MODELS = ("erm", "retrained", "baselines", "jtt", "masktune")
TABLES = ("sweep", "ablation")
ENCODED = "images_encoded"  # images.h5 whose images are encoded
KINDS = (*HDF5, ENCODED, *MODELS, *TABLES, "metrics", "run", "study")
# What reads each kind besides `mac inspect`.
OF_IMAGES = ("api_images", "diagnose", "browse", "evaluate", "report", "export", "features", "examples")
READERS = {
    "images": OF_IMAGES,
    ENCODED: (*OF_IMAGES, "grid", "saliency"),
    "maps": ("api_maps", "masks"),
    "masks": ("api_masks", "diagnose", "browse", "picture", "grid", "report", "explain", "features"),
    "originals": ("api_originals", "features"),
    "features": ("api_features", "diagnose", "browse", "evaluate", "report", "retrain", "sweep", "baselines"),
    "examples": ("report",),
    "erm": ("load", "predict", "explain", "diagnose", "evaluate", "report", "export", "retrain", "baselines"),
    "retrained": ("load", "predict", "explain", "browse", "evaluate", "report", "export"),
    "baselines": ("load_dfr", "predict_dfr", "explain_dfr", "evaluate", "report", "export_dfr", "export"),
    "jtt": ("load", "compare"),
    "masktune": ("load", "compare"),
    "sweep": ("retrain_auto", "report"),
    "ablation": ("compare",),
    "metrics": (),
    "run": ("study", "inspect_table"),
    "study": (),
}
# Those that take a tenth of a second.
APIS = tuple(f"api_{name}" for name in ("images", "maps", "masks", "originals", "features"))
QUICK = (*APIS, "diagnose", "browse", "load", "predict", "retrain_auto", "study", "inspect_table")
RUN = "base/1"  # the run of the study that is changed
OUT = "out"  # what the readers write, in the project's folder


# --- The project ------------------------------------------------------------------------------------------


def build(folder: Path) -> Project:
    """The made-up project with all that the reports read; no artefact says what it was made from."""
    project = made_up.write(folder, kept=[1])
    with project.open("images", "erm", "masks", "features") as given:
        params = ExamplesParams(training=2, mistakes=2, seed=0)
        examples(given, project.path("examples"), params, cached.context(project.data))
    made_up.write_compared(project)
    _write_params(folder)
    read_back = params_file.load(folder / "params.yaml")
    for seed in read_back.of(StudyParams).seeds:
        runs.write_run(project, seed, [read_back.of(model) for model in graph.stage("study").models()])
    run("-q", "evaluate", "--data", str(project.data))
    run("-q", "study", "--data", str(project.data), "--params", str(folder / "params.yaml"))
    for name in HDF5:
        with conftest.edited(project.path(name), sealed=True) as file:
            file.attrs["made_from"] = "{}"
    for name in (*MODELS, *TABLES):
        for file in project.path(name).glob("*.json"):
            file.write_text(json.dumps({**json.loads(file.read_text()), "made_from": {}}))
        if name not in TABLES:
            reseal_model(project.path(name))
    _write_encoded(project)
    for timing in (project.data / "timings").glob("*"):
        timing.unlink()
    (folder / "secret").write_bytes(SECRET)
    return project


def _write_encoded(project: Project) -> None:
    """images.h5 with its images encoded, beside the data folder."""
    path = project.data.parent / "encoded.h5"
    path.write_bytes(project.path("images").read_bytes())
    with conftest.edited(path, sealed=True) as file:
        files = [store.encode(image) for image in file["image"]]
        del file["image"]
        file["encoded/bytes"] = np.frombuffer(b"".join(files), np.uint8)
        file["encoded/offset"] = np.cumsum([0, *map(len, files)])


def _write_params(folder: Path) -> None:
    yaml = YAML(typ="safe")
    yaml.dump(conftest.default_params(), folder / "params.yaml")
    conftest.Project(folder).set(
        retrain__seeds=1, retrain__average=1, retrain__epochs=1, retrain__alpha=1.0, retrain__beta=1.0,
        retrain__l2=0.0, sweep__seeds=1, sweep__average=1, sweep__alphas=[0], sweep__betas=[0, 1],
        baselines__methods=["llr", "dfr_l2", "class_scaling"], features__draws=1,
        dataset__stored_size=72, dataset__input_size=64, examples__training=2, examples__mistakes=2,
        study__seeds=[0, 1],
    )  # fmt: skip
    values = yaml.load(folder / "params.yaml")
    values["retrain"] |= {"alpha": "auto", "beta": "auto"}
    yaml.dump(values, folder / "auto.yaml")


def reseal_model(folder: Path, about: dict[str, Any] | None = None) -> None:
    """Let model.json state the digests that fit, where it states them."""
    file = folder / "model.json"
    found = json.loads(file.read_text()) if about is None else about
    if isinstance(found.get("files"), dict):
        for name in list(found["files"]):
            if (folder / Path(name).name).is_file():
                found["files"][name] = store.file_digest(folder / Path(name).name)
    sealed = getattr(models, "sealed", lambda values: values)
    file.write_text(json.dumps(sealed(found)))


def copied(project: Project, name: str, folder: Path) -> Project:
    """A copy in which the artefact `name` can be changed; the other files are links to those of `project`."""
    source = project.data.parent
    ignored = shutil.ignore_patterns("raw", ".*.verified", "scratch", "plots")
    shutil.copytree(source, folder, ignore=ignored, copy_function=os.link)
    (folder / "raw").symlink_to(source / "raw")
    own = graph.project(folder / "data")
    path = path_of(own, name)
    for file in path.iterdir() if path.is_dir() else [path]:
        content = (source / "encoded.h5" if name == ENCODED else file).read_bytes()
        file.unlink()
        file.write_bytes(content)
    return own


def path_of(project: Project, name: str) -> Path:
    """Where the artefact is that is changed."""
    if name == ENCODED:
        return project.path("images")
    return project.path(name) / RUN if name == "run" else project.path(name)


def _mutate_model(folder: Path, rng: random.Random) -> str:
    how = rng.choice(["about", "about", "tensors", "tensors", "files", "metrics", "history", "text"])
    if how in ("metrics", "history"):
        name = "metrics.json" if how == "metrics" else "history.csv"
        if not (folder / name).exists():
            how = "about"
        elif rng.random() < 0.05:
            (folder / name).unlink()
        elif how == "history":
            (folder / name).write_bytes(mutate_csv((folder / name).read_text(), rng))
        else:
            _mutate_json_file(folder / name, rng)
    about = json.loads((folder / "model.json").read_text())
    if how == "about":
        mutate_json(about, rng)
    elif how in ("tensors", "files"):
        file = rng.choice(sorted(folder.glob("*.safetensors")))
        if how == "files":  # the changed file is there, but no digest of it
            del about["files"][file.name]
        tensors = load_file(file)
        mutate_tensors(tensors, rng)
        save_file({name: np.array(array, order="C") for name, array in tensors.items()}, file)
        if rng.random() < 0.05:
            file.write_bytes(file.read_bytes()[: rng.randrange(200)])
    reseal_model(folder, about)
    if how == "text":
        text = (folder / "model.json").read_text()
        (folder / "model.json").write_bytes(mutate_text(text, rng))
    return how


def _mutate_json_file(file: Path, rng: random.Random) -> None:
    value = json.loads(file.read_text())
    mutate_json(value, rng)
    text = json.dumps(value)
    file.write_bytes(mutate_text(text, rng) if rng.random() < 0.1 else text.encode())


def _mutate_table(folder: Path, rng: random.Random) -> str:
    if (folder / "mean.csv").exists() and rng.random() < 0.5:
        file = folder / rng.choice(("mean.csv", "groups.csv"))
        if rng.random() < 0.05:
            file.unlink()
        else:
            file.write_bytes(mutate_csv(file.read_text(), rng))
        return "csv"
    _mutate_json_file(folder / "metrics.json", rng)
    return "json"


def mutate(path: Path, name: str, rng: random.Random) -> str:
    """Change an artefact of the kind `name` and seal it again; return what was changed."""
    if name in (*HDF5, ENCODED):
        return mutate_hdf5(path, rng)
    if name in MODELS or (name == "run" and rng.random() < 0.6):
        return _mutate_model(path, rng)
    if name == "run":
        path = path / "metrics.json"
    if name in TABLES:
        return _mutate_table(path, rng)
    _mutate_json_file(path, rng)
    return "json"


# --- What reads them --------------------------------------------------------------------------------------


def _read_all(name: str, path: Path) -> None:
    with getattr(api, f"open_{name}")(path) as it:
        for array in it.values():
            array[:2].compute()
    if name == "images":
        api.images_table(path)


def read(project: Project, name: str, reader: str) -> None:
    """Read a changed artefact by one command, or by a function of `pipeline.api`."""
    folder, data = project.data.parent, str(project.data)
    path, out = path_of(project, name), folder / OUT
    image = str(folder / "raw" / "00.png")
    before = {"erm": ["--model", "mac"]}.get(name, [])
    stage = {"compare": "comparison_report", "retrain_auto": "retrain"}.get(reader, reader)
    params = ["--params", str(folder / ("auto.yaml" if reader == "retrain_auto" else "params.yaml"))]
    if reader == "inspect":
        run("inspect", str(path))
        run("inspect", str(path), "--json")
    elif reader == "inspect_table":
        run("inspect", str(path / "metrics.json"))
    elif reader.startswith("api_"):
        _read_all(reader.removeprefix("api_"), path)
    elif reader in ("load", "load_dfr"):
        model, transform = api.load_model(path, method="dfr" if reader == "load_dfr" else None)
        model(transform(image)[None])
    elif reader == "browse":
        run("inspect", str(project.path("masks")), "--csv", str(out))
        run(
            "inspect",
            str(project.path("masks")),
            "--sort",
            "confidence",
            "--against",
            str(project.path("masks")),
        )
    elif reader == "picture":
        run("inspect", str(project.path("masks")), "--image", "0", "--out", str(out))
    elif reader == "grid":
        run("inspect", str(project.path("masks")), "--grid", "2x1", "--out", str(out))
    elif reader.startswith("predict"):
        model_of = ["--model", "dfr"] if reader.endswith("dfr") else before
        run("predict", image, "--data", data, "--csv", str(out), *model_of)
    elif reader.startswith("explain"):
        model_of = ["--model", "dfr"] if reader.endswith("dfr") else before
        run("explain", image, "--data", data, "--out", str(out), *model_of)
    elif reader.startswith("export"):
        model_of = ["--model", "dfr"] if reader.endswith("dfr") else before
        run("export", "--format", "safetensors", "--out", str(out), "--data", data, *model_of)
    elif reader == "diagnose":
        run("diagnose", "--data", data)
    else:
        made = graph.stage(stage).params
        for kind in graph.stage(stage).makes:
            if kind.name != name and project.path(kind.name).exists():
                _remove(project.path(kind.name))
        device = ["--device", "cpu"] if graph.stage(stage).device else []
        run("-q", stage, "--data", data, *(params if made else []), *device)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _leavings(project: Project) -> list[Path]:
    """What is half written."""
    return [path for path in project.data.parent.rglob("*") if path.name.endswith((".tmp", ".old"))]


# --- One change after the other ---------------------------------------------------------------------------


def outcome(project: Project, name: str, seed: int, folder: Path, quick: bool) -> Outcome:
    """Change one artefact, read it, and say what happened. The same seed gives the same.

    Args:
        quick: whether only the readers in QUICK read it, besides `mac inspect`.
    """
    warnings.simplefilter("ignore")  # a test makes errors of them
    rng = random.Random(f"{name} {seed}")
    np.random.seed(seed % 2**32)
    own = copied(project, name, folder)
    (folder / "other.h5").write_bytes(project.path("features").read_bytes())
    os.mkfifo(folder / "pipe")
    how = mutate(path_of(own, name), name, rng) if seed != AS_IT_IS else "nothing"
    found = Outcome("ok", how, "inspect", "")
    readers = [] if name in ("sweep",) else ["inspect"]
    others = [reader for reader in READERS[name] if reader in QUICK or not quick]
    if others:
        readers.append(rng.choice(others))
    for reader in readers:
        target = own
        if reader == "inspect" and name == "ablation":
            target = graph.project(own.data, ablation=own.path("ablation") / "metrics.json")
        try:
            read(target, name, reader)
        except MacError as error:
            if "\n" in str(error) or not str(error):
                return Outcome("traceback", how, reader, repr(str(error)))
            found = Outcome("refused", how, reader, str(error))
            break
        except BaseException as error:
            return Outcome("traceback", how, reader, last(error))
    if left := _leavings(own):
        return Outcome("leavings", how, found.reader, str(left))
    return found
