"""An output file does not replace what is read, nor an artefact."""

import os
from pathlib import Path

import pytest

from pipeline.errors import MacError
from stages.outputs import check_output


def test_an_input_and_an_artefact_are_refused(tmp_path: Path) -> None:
    image, link, hard = (tmp_path / name for name in ("a.png", "link.png", "hard.png"))
    image.touch()
    link.symlink_to(image)
    os.link(image, hard)
    for out in (image, link, hard):
        with pytest.raises(MacError, match="is an input; choose another name for the output"):
            check_output(out, [tmp_path / "other.png", image])
    artefacts = [tmp_path / "data" / "masks.h5", tmp_path / "erm" / "model.safetensors"]
    for file in (*artefacts, tmp_path / "erm" / "model.json"):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    for out in artefacts:
        with pytest.raises(MacError, match="is an artefact, or in the folder of one; choose another name"):
            check_output(out)
    data = tmp_path / "project"
    below = (
        "images.h5",
        "erm",
        "erm/x.png",
        "sweep/mean.csv",
        "comparison/ablation/x",
        "x/../masks.h5",
    )
    for name in below:
        with pytest.raises(MacError, match="is an artefact, or in the folder of one"):
            check_output(data / name, data=data)  # none of them is there yet
    check_output(data / "x.png", data=data)
    for allowed in (None, tmp_path / "new.png", image):
        check_output(allowed, [tmp_path / "other.png"])
