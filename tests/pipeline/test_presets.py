"""`mac init`: every preset is a whole, commented params.yaml."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline import params_file, presets
from stages.cli import main
from tests.conftest import REPOSITORY

PRESETS = ["bar", "celeba", "demo", "dominoes", "folder", "imagefolder", "imagenetbg", "metashift", "nicopp"]
PRESETS += ["own-model", "spawrious", "subpopbench", "waterbirds", "webdataset"]
READER = {"own-model": "folder", "subpopbench": "folder"}  # of others, the name


def init(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", "--params", str(folder / "params.yaml"), *arguments])


def test_the_list_says_what_each_is_for() -> None:
    output = CliRunner().invoke(main, ["init", "--list"]).output
    assert list(presets.summaries()) == PRESETS
    for name in PRESETS:
        assert f"\n{name} " in f"\n{output}"
    assert "with the paper's settings" in " ".join(output.split())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_valid_file_whose_every_line_says_where_it_is_from(name: str, tmp_path: Path) -> None:
    result = init(tmp_path, name)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "params.yaml").read_text()
    loaded = params_file.load(tmp_path / "params.yaml")
    assert loaded.values["dataset"]["name"] == READER.get(name, name)
    for line in text.splitlines():
        assert "# " in line or line.rstrip(":") in params_file.blocks(), line
        assert len(line) <= 110


def values(name: str, tmp_path: Path) -> dict[str, Any]:
    init(tmp_path, name)
    return {block: dict(keys) for block, keys in params_file.load(tmp_path / "params.yaml").values.items()}


def test_waterbirds_and_celeba_have_the_paper_s_settings(tmp_path: Path) -> None:
    both = {
        "train": {"lr": 1e-3, "momentum": 0.9, "schedule": "constant", "flip": True},
        "retrain": {"solver": "adam", "lr": 5e-3, "lr_step": 5, "lr_gamma": 0.5},
        "saliency": {"top_k": 15000, "method": "xgradcam"},
        "model": {"architecture": "resnet50", "weights": "IMAGENET1K_V1"},
        "features": {"batch_size": 32},
    }
    own: dict[str, dict[str, dict[str, Any]]] = {
        "waterbirds": {
            "train": {"epochs": 100, "batch_size": 32, "weight_decay": 1e-3},
            "retrain": {"alpha": 2, "beta": 3, "epochs": 10},
            "retraining_set": {"balance": "none"},
            "dataset": {
                "stored_size": 256,
                "to_stored": "squash",
                "input_size": 224,
                "to_input": "center_crop",
            },
        },
        "celeba": {
            "train": {"epochs": 30, "batch_size": 128, "weight_decay": 1e-4},
            "retrain": {"alpha": 3, "beta": 0, "epochs": 6},
            "retraining_set": {"balance": "class"},
            "dataset": {
                "stored_size": 178,
                "to_stored": "center_crop",
                "input_size": 224,
                "to_input": "resize",
            },
        },
    }
    for name, blocks in own.items():
        found = values(name, tmp_path / name)
        for expected in (both, blocks):
            for block, settings in expected.items():
                assert {key: found[block][key] for key in settings} == settings


@pytest.mark.parametrize("name", PRESETS)
def test_sets_without_attributes_leave_the_weights_to_the_sweep(name: str, tmp_path: Path) -> None:
    found = values(name, tmp_path)
    known = "dfr" in found["baselines"]["methods"]  # what needs attributes can be fitted
    weights = {found["retrain"][key] for key in ("alpha", "beta", "l2")}
    assert ("auto" in weights) == (not known)
    assert 0 in found["sweep"]["l2s"]  # what the paper has can be picked
    if not known:
        assert weights == {"auto"}
        assert found["sweep"]["seeds"] * found["sweep"]["average"] == 3


def test_the_repository_s_own_parameters_are_the_preset_demo() -> None:
    assert (REPOSITORY / "params.yaml").read_text() == presets.text("demo")


def test_a_preset_s_file_has_only_lines_that_differ_from_the_common_ones() -> None:
    common = (REPOSITORY / "pipeline/presets/common.yaml").read_text().splitlines()
    for name in PRESETS:
        lines = (REPOSITORY / f"pipeline/presets/{name}.yaml").read_text().splitlines()
        assert [line for line in lines if line in common and line.startswith("  ")] == []


def test_a_file_that_is_there_stays_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("mine: 1\n")
    result = init(tmp_path, "bar")
    assert result.exit_code == 1
    assert "params.yaml: is there already, and is kept; 'mac init --force' replaces it" in result.stderr
    assert (tmp_path / "params.yaml").read_text() == "mine: 1\n"
    assert init(tmp_path, "bar", "--force").exit_code == 0
    assert params_file.load(tmp_path / "params.yaml").values["dataset"]["name"] == "bar"


def test_set_changes_values_and_keeps_the_comments(tmp_path: Path) -> None:
    sets = [
        "retrain.alpha=1",
        "dataset.root=my images",
        "train.crop_scale=[0.5, 1]",
        "dataset.options.core_classes=[cat, dog]",
    ]
    result = init(tmp_path, "dominoes", *(part for change in sets for part in ("--set", change)))
    assert result.exit_code == 0, result.output
    changed = params_file.load(tmp_path / "params.yaml").values
    assert (changed["retrain"]["alpha"], changed["dataset"]["root"]) == (1, "my images")
    assert changed["train"]["crop_scale"] == (0.5, 1)
    assert changed["dataset"]["options"]["core_classes"] == ["cat", "dog"]
    before = presets.text("dominoes").splitlines()
    after = (tmp_path / "params.yaml").read_text().splitlines()
    assert [line.partition("#")[2] for line in after] == [line.partition("#")[2] for line in before]
    assert sum(one != other for one, other in zip(before, after, strict=True)) == len(sets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "retrain.alpha=-1",
            "changed parameters: retrain.alpha: Value error, should be a number from 0 to 1,000,000, or "
            "auto, found -1",
        ),
        ("retrain.alhpa=1", "changed parameters: retrain.alhpa: unknown key"),
        ("retrian.alpha=1", "retrian.alpha=1: no block retrian; the blocks are dataset, model, train"),
        ("retrain.alpha", "retrain.alpha: expected key=value"),
        ("retrain.alpha=[", "retrain.alpha=[: is not YAML"),
        (
            "retrain.alpha=!!int x",
            "retrain.alpha=!!int x: holds a value that cannot be read (invalid literal",
        ),
        ("train.epochs=1" + "0" * 30, "changed parameters: train.epochs: Input should be less than or equal"),
        ("dataset.root=" + "[" * 2000, "[[[: is nested too deeply"),
        ("dataset.options.label=Hat", "changed parameters: dataset.options.label: unknown key"),
    ],
)
def test_a_wrong_change_is_one_line_and_writes_nothing(tmp_path: Path, change: str, message: str) -> None:
    result = init(tmp_path, "waterbirds", "--set", change)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_unknown_preset_names_those_there_are(tmp_path: Path) -> None:
    assert "no preset 'birds'; there are bar, celeba, demo" in init(tmp_path, "birds").stderr


def test_a_network_of_timm_sets_what_it_was_made_for_where_no_change_says_otherwise(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    architecture = "model.architecture=timm/vit_small_patch16_224"
    result = init(tmp_path, "waterbirds", "--set", architecture, "--set", "dataset.stored_size=256")
    assert result.exit_code == 0
    assert (
        "set as the network wants it: dataset.input_size=224, dataset.interpolation=bicubic, "
        in result.stdout
    )
    values = params_file.load(tmp_path / "params.yaml").values
    assert values["dataset"] | {"stored_size": 256, "interpolation": "bicubic", "input_size": 224} == dict(
        values["dataset"]
    )
    assert values["saliency"]["method"] == "auto"
    assert values["model"]["weights"] == "pretrained"
    own = [*("--set", architecture), *("--set", "model.classifier=best.pth"), "--force"]
    assert init(tmp_path, "own-model", *own).exit_code == 0
    values = params_file.load(tmp_path / "params.yaml").values
    assert (values["dataset"]["stored_size"], values["model"]["weights"]) == (249, "none")
    size = ("--force", "--set", "model.architecture=timm/efficientnet_b7", "--set", "dataset.input_size=320")
    assert init(tmp_path, "folder", *size).exit_code == 0
    values = params_file.load(tmp_path / "params.yaml").values
    assert (values["dataset"]["stored_size"], values["model"]["weights"]) == (337, "none")
    assert (
        "timm has no 'vit'"
        in init(tmp_path, "folder", "--force", "--set", "model.architecture=timm/vit").stderr
    )
