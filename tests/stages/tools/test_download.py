from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.tools import download
from stages.cli import main
from stages.tools.download import NAMES


def test_every_name_of_the_command_is_published() -> None:
    assert list(download.PUBLISHED) == NAMES


def test_it_says_where_the_dataset_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[object] = []
    monkeypatch.setattr(download, "download", lambda *arguments: asked.append(arguments) or tmp_path)
    result = CliRunner().invoke(
        main, ["download", "mnist", "--to", str(tmp_path), "--mirror", "http://there/"]
    )
    assert result.output == f"mnist is in {tmp_path}\n"
    assert asked == [("mnist", tmp_path, "http://there/")]
