"""mac init: the presets are listed, and one is written with changes."""

from pathlib import Path

from click.testing import CliRunner

from pipeline import presets
from stages.cli import main


def test_presets_are_listed() -> None:
    listed = CliRunner().invoke(main, ["init", "--list"]).output
    for name in presets.summaries():
        assert name in listed


def test_one_is_written_with_changes_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    arguments = ["init", "waterbirds", "--params", str(file)]
    assert (
        CliRunner().invoke(main, [*arguments, "--set", "retrain.alpha=7"]).output.startswith(f"wrote {file}")
    )
    assert "alpha: 7" in file.read_text()
    kept = CliRunner().invoke(main, arguments)
    assert kept.exit_code == 1
    assert "is there already, and is kept" in kept.stderr
    assert CliRunner().invoke(main, [*arguments, "--force"]).exit_code == 0
    assert "alpha: 7" not in file.read_text()
