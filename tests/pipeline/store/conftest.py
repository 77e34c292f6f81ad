from pathlib import Path

import pytest

from tests.pipeline.store import masks_file


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """A small masks.h5, to be changed at will."""
    masks_file.write(tmp_path / "masks.h5")
    return tmp_path / "masks.h5"
