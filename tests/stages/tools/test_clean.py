"""mac clean: what unfinished runs left is listed, and removed when asked for."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.compute.engine import Scratch
from stages.cli import main


def said(data: Path, *options: str) -> str:
    result = CliRunner().invoke(main, ["clean", "--data", str(data), *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_what_is_left_is_listed_and_removed(tmp_path: Path) -> None:
    assert f"{tmp_path / 'scratch'}: nothing left" in said(tmp_path)
    try:
        with Scratch(tmp_path / "scratch", "features", __name__) as scratch:
            assert "in use" in said(tmp_path, "--remove")
            (scratch.folder / "0.safetensors").write_bytes(b"done")
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


def test_what_is_not_of_a_stage_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MAC_SCRATCH may name a folder with other things in it."""
    monkeypatch.setenv("MAC_SCRATCH", str(tmp_path))
    for name in ("data", "features-new", "features-0123456789abcdef0"):
        (tmp_path / name).mkdir()
    assert f"{tmp_path}: nothing left" in said(tmp_path, "--remove")
    assert len(list(tmp_path.iterdir())) == 3


def test_what_may_not_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("prepare", "features"):
        (tmp_path / "scratch" / f"{name}-0123456789abcdef").mkdir(parents=True)
    remove = shutil.rmtree

    def not_ours(path: Path) -> None:
        if path.name.startswith("prepare"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        remove(path)

    monkeypatch.setattr("stages.tools.clean.shutil.rmtree", not_ours)
    result = CliRunner().invoke(main, ["clean", "--data", str(tmp_path), "--remove"])
    assert result.exit_code == 1
    assert re.search(r"prepare-\S+ .* cannot be removed \(Permission denied\)", result.output)
    assert "scratch: 1 of these could not be removed; ask their owner to do it" in result.output
    assert [folder.name[:7] for folder in (tmp_path / "scratch").iterdir()] == ["prepare"]
