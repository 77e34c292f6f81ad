import shutil
from pathlib import Path

import pytest

from pipeline.project import Project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    """A copy of what the module's fixture `made` made, to be changed at will."""
    shutil.copytree(made.data, tmp_path / "data")
    return Project(tmp_path / "data", made.kinds)
