"""params.yaml is checked as a whole; each stage gets its own part."""

import os
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.errors import MacError
from pipeline.params.cores import CoreParams
from pipeline.params.dataset import DatasetParams
from pipeline.params.fit import FitParams
from pipeline.params.retrain import RetrainParams
from pipeline.params_file import blocks, load, of_run, parse
from tests.conftest import REPOSITORY, default_params


def test_the_repository_s_own_file_is_valid() -> None:
    assert load(REPOSITORY / "params.yaml").of(RetrainParams).lr == 0.005


def test_yaml_1_2_numbers_are_numbers(tmp_path: Path) -> None:
    text = (REPOSITORY / "params.yaml").read_text().replace("lr: 0.005", "lr: 5e-3")
    (tmp_path / "params.yaml").write_text(text)
    assert load(tmp_path / "params.yaml").of(RetrainParams).lr == 0.005


WEIGHT = "Value error, should be a number from 0 to 1,000,000, or auto"


@pytest.mark.parametrize(
    ("block", "key", "value", "message"),
    [
        (
            "retrain",
            "alpha",
            "x",
            f"params.yaml: retrain.alpha: {WEIGHT}, found 'x'",
        ),
        (
            "retrain",
            "alpha",
            -1,
            f"params.yaml: retrain.alpha: {WEIGHT}, found -1",
        ),
        (
            "retrain",
            "alpha",
            None,
            f"params.yaml: retrain.alpha: {WEIGHT}, found None",
        ),
        (
            "retrain",
            "alpha",
            "auto",
            "params.yaml: retrain: Value error, alpha is auto, beta is 30.0; give numbers to both, or auto",
        ),
        (
            "retrain",
            "l2",
            "auto",
            "params.yaml: retrain: Value error, l2 is auto, alpha is 1.0, beta is 30.0; the three are "
            "picked together: give a number to l2, or auto to all of them",
        ),
        ("retrain", "l2", -1, f"params.yaml: retrain.l2: {WEIGHT}, found -1"),
        (
            "sweep",
            "l2s",
            [],
            "params.yaml: sweep.l2s: List should have at least 1 item after validation, not 0, found []",
        ),
        ("retrain", "alhpa", 1, "params.yaml: retrain.alhpa: unknown key, found 1"),
        (
            "retrain",
            "beta",
            float("inf"),
            f"params.yaml: retrain.beta: {WEIGHT}, found inf",
        ),
        (
            "train",
            "epochs",
            10**30,
            "params.yaml: train.epochs: Input should be less than or equal to 1000000",
        ),
        (
            "train",
            "seed",
            2**63,
            "params.yaml: train.seed: Input should be less than 9223372036854775808, found 9223372036854",
        ),
        (
            "dataset",
            "stored_size",
            40000,
            "params.yaml: dataset.stored_size: Input should be less than or equal to 4096, found 40000",
        ),
        (
            "dataset",
            "root",
            "x" * 10**6,
            "params.yaml: dataset.root: String should have at most 4096 characters",
        ),
        ("sweep", "seeds", 0, "params.yaml: sweep.seeds: Input should be greater than 0, found 0"),
        (
            "saliency",
            "top_k",
            1.5,
            "params.yaml: saliency.top_k: Value error, should be a whole number of pixels, or a fraction",
        ),
        (
            "saliency",
            "top_k",
            1.0,
            "params.yaml: saliency.top_k: Value error, is one pixel or all of them; write 1, or a share",
        ),
        (
            "dataset",
            "range",
            2**32 + 1,
            "params.yaml: dataset.range: Value error, should be a number above 0 and at most 2**32, or auto",
        ),
        ("dataset", "range", 0, "params.yaml: dataset.range: Value error, should be a number above 0 and"),
        ("dataset", "range", "full", "params.yaml: dataset.range: Value error, should be a number above 0"),
        ("saliency", "top_k", True, "params.yaml: saliency.top_k: Value error, should not be true or false"),
        ("train", "epochs", True, "params.yaml: train.epochs: Value error, should not be true or false"),
        ("sweep", "alphas", [1, False], "params.yaml: sweep.alphas: Value error, should not be true or"),
        (
            "train",
            "crop_scale",
            [0.9, 0.2],
            "params.yaml: train.crop_scale: Value error, should be two rising fractions",
        ),
        (
            "train",
            "keep_epochs",
            [1, 19],
            "params.yaml: train: Value error, keep_epochs is [1, 19]; it should be rising epochs of the 18",
        ),
        ("train", "keep_epochs", [2, 1], "params.yaml: train: Value error, keep_epochs is [2, 1]; it should"),
        (
            "train",
            "schedule",
            "linear",
            "params.yaml: train.schedule: Input should be 'constant', 'cosine' or 'one_cycle'",
        ),
        (
            "model",
            "classes",
            ["a"],
            "params.yaml: model: Value error, classes names the outputs of model.clas",
        ),
        (
            "model",
            "normalization",
            {"mean": [0] * 3},
            "params.yaml: model.normalization: Value error, should be",
        ),
        (
            "model",
            "normalization",
            {"mean": [0] * 3, "std": [1, 1, 0]},
            "params.yaml: model.normalization: Value error, should be auto, or {mean: [..], std: [..]} with",
        ),
        ("dataset", "name", "birds", "params.yaml: dataset.name: should be one of demo, waterbirds, celeba"),
    ],
)
def test_a_wrong_value_is_one_line_with_file_and_dotted_key(
    block: str, key: str, value: Any, message: str
) -> None:
    values = default_params()
    values[block][key] = value
    with pytest.raises(MacError) as error:
        parse(values, "params.yaml")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_both_weights_may_be_left_to_the_sweep() -> None:
    values = default_params()
    values["retrain"] |= {"alpha": "auto", "beta": "auto"}
    found = parse(values, "params.yaml").of(RetrainParams)
    assert (found.alpha, found.beta) == ("auto", "auto")
    values["retrain"] |= {"alpha": 0, "beta": 2.5}
    found = parse(values, "params.yaml").of(RetrainParams)
    assert (found.alpha, found.beta) == (0.0, 2.5)


def test_a_missing_key_and_several_errors() -> None:
    values = default_params()
    del values["features"]["draws"]
    values["train"]["epochs"] = 0
    with pytest.raises(MacError, match=r"params.yaml: train.epochs: .*, found 0 \(and 1 more\)"):
        parse(values, "params.yaml")
    values["train"]["epochs"] = 1
    with pytest.raises(MacError, match=r"^params.yaml: features.draws: this key is missing$"):
        parse(values, "params.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot be read"), ("a: [", "is not YAML"), ("[]", "top level"), ("", "top level")],
)
def test_a_file_that_is_none(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(MacError, match=message) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def loaded_with(tmp_path: Path, old: str, new: str) -> str:
    """What is wrong with the repository's params.yaml after a change; empty if nothing is."""
    text = (REPOSITORY / "params.yaml").read_text()
    assert old in text
    (tmp_path / "params.yaml").write_bytes(text.replace(old, new, 1).encode("utf-8", "surrogatepass"))
    try:
        load(tmp_path / "params.yaml")
    except MacError as error:
        return str(error)
    return ""


VALUES = """
    2020-99-99|2020-01-01T99:99:99Z|!!int x|!!int ''|!!float ''|!!bool x|!!binary '@'|!!timestamp x|!!omap [a]
    !!python/object:os.system x|!foo bar|*nothing|'|@x|.inf|{[1]: 2}|- x
"""
LARGE_VALUES = ["0x" + "f" * 9000, "9" * 5000, "[" * 9000, "- " * 9000, "? " * 9000, "\0", "\ud800", "\t- x"]


@pytest.mark.parametrize(
    "value",
    [*VALUES.strip().replace("\n", "|").split("|"), *LARGE_VALUES],
    ids=lambda value: ascii(value[:20]),
)
def test_what_yaml_cannot_hold_is_one_line(tmp_path: Path, value: str) -> None:
    for old, new in (("lr: 0.005", f"lr: {value}"), ("options: {}", f"options:\n    label: {value}")):
        message = loaded_with(tmp_path, old, new)
        assert message.startswith(f"{tmp_path}/params.yaml: ")
        assert len(message.splitlines()) == 1


def test_a_short_text_cannot_stand_for_a_huge_value(tmp_path: Path) -> None:
    lists = "x0: &x0 lol\n"
    merged = "x0: &x0 {key: 1}\n"
    for level in range(1, 10):
        ten = ", ".join([f"*x{level - 1}"] * 10)
        lists += f"x{level}: &x{level} [{ten}]\n"
        merged += f"x{level}: &x{level} {{<<: [{ten}]}}\n"
    for text in (lists, merged, "a: &a [*a]", "a: [" + "1, " * 15_000 + "]"):
        message = loaded_with(tmp_path, "model:", f"{text}\nmodel:")
        assert "is more than 10000 values, aliases counted" in message
    assert "more than 100000 bytes" in loaded_with(tmp_path, "model:", "#" * 100_000 + "\nmodel:")


def test_an_alias_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    assert loaded_with(tmp_path, "root: data/raw/demo", "root: &root data/raw/demo") == ""
    file = tmp_path / "params.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    load(file)


def test_params_that_are_no_text_or_no_file(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text((REPOSITORY / "params.yaml").read_text(), encoding="utf-16")
    with pytest.raises(MacError, match="params.yaml: is not UTF-8 text .*; save it as UTF-8$"):
        load(file)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(MacError, match="params.yaml: is a named pipe, and no file"):
        load(file)
    with pytest.raises(MacError, match=f"{tmp_path}: is a folder, and no file"):
        load(tmp_path)


def test_a_stage_gets_the_keys_of_its_own_models_alone() -> None:
    chosen = parse(default_params(), "params.yaml")
    assert set(chosen.of(DatasetParams).model_dump()) == {
        "name",
        "root",
        "options",
        "stored_size",
        "to_stored",
        "interpolation",
        "range",
        "storage",
        "on_error",
        "on_duplicates",
    }
    fit, retrain = chosen.of(FitParams), chosen.of(RetrainParams)
    assert set(retrain.model_dump()) - set(fit.model_dump()) == {"alpha", "beta"}
    assert fit.head_seeds == [0, 1, 2, 3, 4]
    assert fit.model_copy(update={"solver": "lbfgs"}).head_seeds == [0]


def test_every_key_of_the_file_belongs_to_a_stage() -> None:
    found = {block: set(values) for block, values in default_params().items()}
    assert {block: set(model.model_fields) for block, model in blocks().items()} == found


def test_settings_that_do_not_fit_together() -> None:
    values = default_params()
    values["dataset"]["input_size"] = 300
    with pytest.raises(
        MacError,
        match="params.yaml: dataset.input_size: a centre crop of 300 does not fit in stored_size 240",
    ):
        parse(values, "params.yaml")
    values["dataset"]["to_input"] = "resize"
    parse(values, "params.yaml")


@pytest.mark.parametrize(("key", "value"), [("hold_out", 0.2), ("keep_epochs", [1])])
def test_what_a_training_alone_gives_is_not_asked_of_an_own_classifier(key: str, value: Any) -> None:
    values = default_params()
    values["train"][key] = value
    parse(values, "params.yaml")
    values["model"]["classifier"] = "own.pth"
    with pytest.raises(MacError, match=f"params.yaml: train.{key}: is .*, but with model.classifier no"):
        parse(values, "params.yaml")


def test_the_reader_s_own_options() -> None:
    values = default_params()
    values["dataset"]["options"] = {"label": "Hat"}
    with pytest.raises(MacError, match="^params.yaml: dataset.options.label: unknown key, found 'Hat'$"):
        parse(values, "params.yaml")


@pytest.mark.parametrize("top_k", [1, 2.0, 0.999, 15000])
def test_one_pixel_and_shares_are_taken_as_they_are(top_k: float) -> None:
    values = default_params()
    values["saliency"]["top_k"] = top_k
    params = parse(values, "here")
    assert params.of(CoreParams).top_k == top_k
    assert CoreParams.model_validate(params.of(CoreParams).model_dump()).top_k == top_k


def test_a_core_that_the_input_grid_cannot_have_is_told_before_anything_runs() -> None:
    values = default_params()
    size = values["dataset"]["input_size"]
    values["saliency"]["top_k"] = size**2 + 1
    message = f"here: saliency.top_k: {size**2 + 1} pixels, but the input grid has only {size}² = {size**2}"
    with pytest.raises(MacError, match=f"^{message}$"):
        parse(values, "here")
    values["saliency"] |= {"top_k": size**2, "side": "rest"}
    with pytest.raises(MacError, match="saliency.side 'rest', .* leave no core"):
        parse(values, "here")
    for unread in ({"size": "knee"}, {"method": "external"}, {"side": "core"}):
        parse({**values, "saliency": values["saliency"] | unread}, "here")


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"k20": {"saliency.top_q": 0.2}}, "study.variants.k20: saliency.top_q: unknown key, found 0.2"),
        ({"k20": {"saliency.top_k": 0.0}}, "study.variants.k20: saliency.top_k: Value error, should be a"),
        ({"k20": {"salience.top_k": 0.2}}, "study.variants.k20: salience.top_k: there is no block salience"),
        ({"k20": {"top_k": 0.2}}, "study.variants.k20: top_k: should be a key of a block, such as saliency"),
        ({"k20": {"study.seeds": [1]}}, "study.variants.k20: study.seeds: should be a key of a block"),
        ({"k20": {"train.seed": 1}}, "study.variants.k20: train.seed: is the seed of the run, one of study"),
        ({"k20": {"jtt.epochs": 2}}, "study.variants.k20: jtt.epochs: no stage of the study reads it"),
        ({"k20": {"saliency.previews": 2}}, "study.variants.k20: saliency.previews: no stage of the study"),
        (
            {"k20": {"dataset.input_size": 999}},
            "study.variants.k20: dataset.input_size: a centre crop of 9",
        ),
        ({"k20": {"retrain.alpha": "auto"}}, "study.variants.k20: retrain: Value error, alpha is auto, beta"),
        ({"a/b": {}}, "study.variants.a/b.[key]: String should match pattern"),
        ({"k20": 3}, "study.variants.k20: Input should be a valid dictionary, found 3"),
        ({}, "study.variants: Dictionary should have at least 1 item"),
    ],
)
def test_a_wrong_variant_of_the_study_is_one_line(study: Any, message: str) -> None:
    values = default_params()
    values["study"]["variants"] = study
    with pytest.raises(MacError) as error:
        parse(values, "params.yaml")
    assert str(error.value).startswith(f"params.yaml: {message}")


def test_a_seed_of_the_study_is_there_once() -> None:
    values = default_params()
    values["study"]["seeds"] = [0, 1, 0]
    with pytest.raises(MacError, match="study.seeds: Value error, should have each seed once"):
        parse(values, "params.yaml")


def test_a_run_of_the_study_has_its_seed_and_the_changes_of_its_variant(tmp_path: Path) -> None:
    values = default_params()
    options = {"model.architecture": "resnet18", "train.crop_scale": [0.5, 1.0], "dataset.on_error": "skip"}
    values["study"] = {"seeds": [0, 7], "variants": {"base": {}, "other": options}, "threads": 3}
    file = tmp_path / "params.yaml"
    YAML(typ="safe").dump(values, file)
    found, plain = (of_run(file, name, 7).values for name in ("other", "base"))
    assert found["study"] == {"seeds": [7], "variants": {"other": options}, "threads": 3}
    whole = load(file).values
    changed = {"train.seed": 7, "saliency.seed": 7, "features.seed": 7, "saliency.previews": 0, **options}
    for block, keys in found.items():
        for key, value in keys.items():
            if block != "study":
                same = whole[block][key]
                expected = changed.get(f"{block}.{key}", same)
                assert value == (tuple(expected) if isinstance(value, tuple) else expected)
    assert plain["model"] == whole["model"]
