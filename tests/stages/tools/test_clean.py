"""mac clean: what unfinished runs left is listed, and removed when asked for."""

from pathlib import Path

from click.testing import CliRunner

from pipeline.compute.engine import Shards
from stages.cli import main


def said(data: Path, *options: str) -> str:
    result = CliRunner().invoke(main, ["clean", "--data", str(data), *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_what_is_left_is_listed_and_removed(tmp_path: Path) -> None:
    assert f"{tmp_path / 'scratch'}: nothing left" in said(tmp_path)
    try:
        with Shards(tmp_path / "scratch", "features", __name__) as shards:
            assert "in use" in said(tmp_path, "--remove")
            (shards.folder / "0.safetensors").write_bytes(b"done")
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    listed = said(tmp_path)
    assert "features-" in listed
    assert "left by a run that was broken off" in listed
    assert "'mac clean --remove' removes it" in listed
    assert "nothing left" in said(tmp_path, "--older-than", "1")
    assert "removed" in said(tmp_path, "--remove")
    assert not list((tmp_path / "scratch").iterdir())
