"""An older params.yaml gets what it lacks, and keeps all else as it was written."""

import pytest

from pipeline import presets
from pipeline.errors import MacError
from pipeline.presets.upgrade import upgraded


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("preset", ["demo", "folder", "own-model", "celeba"])
def test_half_of_the_keys_come_back_as_they_are_in_the_preset(preset: str, kept: int) -> None:
    """Keys of all forms: the first one and the last one of a block, the only one, one of many lines."""
    older, dropped = presets.text(preset), 0
    for block, lines in presets.lines_of(preset).items():
        for number, of_key in enumerate(list(lines.values())[1:]):
            if number % 2 != kept:
                block_text = older[older.index(f"\n{block}:") :]
                shorter = block_text.replace("\n" + "\n".join(of_key), "", 1)
                older = older.removesuffix(block_text) + shorter
                dropped += 1
    again = upgraded(older, "params.yaml")
    assert again.text == presets.text(preset)
    assert len(again.added) == dropped > 20
    assert upgraded(again.text, "params.yaml").added == []


def test_values_and_comments_are_kept_and_keys_that_are_no_more_are_comments() -> None:
    text = presets.text("folder")
    text = text.replace(
        "  epochs: 30                        # ours\n",
        "  epochs: 7  # mine\n  # warm\n  warm:\n    - 3\n\n",
        1,
    )
    text = text.replace("\njtt:", "\nolder: {of: 1}\njtt:").replace("  on_error: fail", "# on_error: skip")
    again = upgraded(text, "params.yaml")
    assert again.dropped == ["train.warm", "older"]
    assert [line.partition(" #")[0] for line in again.added] == ["dataset.on_error: fail"]
    assert "  epochs: 7  # mine\n  # warm\n#   warm:\n#     - 3\n\n  batch_size" in again.text
    assert "\n# older: {of: 1}\njtt:" in again.text
    assert "# on_error: skip" in again.text


def test_blocks_that_are_missing_or_indented_otherwise() -> None:
    demo = presets.text("demo")
    start, end, last = (demo.index(f"\n{block}:\n") + 1 for block in ("examples", "study", "tracking"))
    text = demo[:start] + demo[end:last].replace("  seeds: [0, 1, 2, 3, 4]", "    seeds: [1]", 1).replace(
        "  variants: {base: {}}", "    variants: {base: {}}"
    ).replace("  threads: 1                        # ours: CPU threads of each run\n", "")  # fmt: skip
    again = upgraded(text, "params.yaml")
    assert again.text.endswith("each run\n" + demo[start:end] + demo[last:])
    assert demo[last:].startswith("tracking:\n  to: none  ")
    assert "    seeds: [1]" in again.text
    assert "\n    threads: 1  " in again.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "is no file of parameters"),
        ("train: {epochs: 1}", "train: write each key on a line of its own, and run 'mac upgrade' again; "),
        ("train: [", "is not YAML"),
    ],
)
def test_what_cannot_be_upgraded_is_said(text: str, said: str) -> None:
    with pytest.raises(MacError, match=said):
        upgraded(text, "params.yaml")
