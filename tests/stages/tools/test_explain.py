"""mac explain on the made-up project."""

from pathlib import Path

import pytest
from click import BadParameter
from PIL import Image

from pipeline import project
from stages.tools.explain import _TopK
from tests.conftest import Project


@pytest.mark.parametrize("options", [[], ["--top-k", "0.1", "--target", "waterbird"], ["--model", "dfr"]])
def test_a_row_for_each_image(artefacts: project.Project, tmp_path: Path, options: list[str]) -> None:
    folder = artefacts.data.parent
    images = [str(folder / "raw" / name) for name in ("00.png", "01.png")]
    said = Project(folder).succeed("explain", *images, "--out", str(tmp_path / "x.png"), *options).stdout
    assert said == f"{tmp_path / 'x.png'}\n"
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (4 * 248 + 8 + 260, 2 * 270)


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("1.0", "1.0 is one pixel or all of them; write 1, or a share below 1 such as 0.99"),
        ("1.5", "1.5 should be a whole number of pixels, or a fraction"),
        ("-1", "-1 should be a whole number"),
        ("few", "'few' is no number"),
    ],
)
def test_top_k_is_as_in_params_yaml(written: str, wrong: str) -> None:
    with pytest.raises(BadParameter) as error:
        _TopK().convert(written, None, None)
    assert wrong in str(error.value)
    assert [_TopK().convert(each, None, None) for each in ("1", "0.25", "300")] == [1, 0.25, 300]


def test_bad_usage_is_one_line_and_nothing_is_written(own_artefacts: project.Project, tmp_path: Path) -> None:
    mac, out = Project(own_artefacts.data.parent), ["--out", str(tmp_path / "x.png")]
    image = str(own_artefacts.data.parent / "raw" / "00.png")
    (tmp_path / "broken.jpg").write_bytes(b"")
    assert "cannot be read as an image" in mac.fail("explain", str(tmp_path / "broken.jpg"), *out)
    assert "target cow: no such class; there are landbird, waterbird" in mac.fail(
        "explain", image, "--target", "cow", *out
    )
    assert "top_k: 100000 pixels, but the" in mac.fail("explain", image, "--top-k", "100000", *out)
    own_artefacts.path("masks").unlink()
    assert "masks.h5: no such file; run 'mac masks'" in mac.fail("explain", image, *out)
    assert "masks.h5: no such file" in mac.fail("explain", image, "--top-k", "0.2", *out)
    own = ("--top-k", "0.2", "--side", "rest", "--no-flip")
    mac.succeed("explain", image, *own, "--out", str(tmp_path / "y.png"))
    assert not (tmp_path / "x.png").exists()
