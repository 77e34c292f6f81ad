"""Masks from the user's files: the same as the true masks if they are these, and what is wrong with them."""

import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.compute import engine
from pipeline.compute.context import Context
from pipeline.errors import MacError
from pipeline.project import Project
from pipeline.schemas.masks import SCHEMA
from pipeline.steps import masks as stage
from pipeline.steps.external_masks import ExternalMasks, find
from tests.conftest import edited
from tests.pipeline.steps import untrained
from tests.pipeline.steps.untrained import MASKS, make_masks

MASKED = 94  # training and validation images


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose true masks are also files, in the folder `files` and in the table `my.csv`."""
    project = untrained.write_project(tmp_path_factory.mktemp("project"))
    (project.data / "files").mkdir()
    rows = ["path;mask"]
    with project.open("images") as given:
        foreground = given.file("images")["foreground"][:MASKED]
    for row, mask in enumerate(foreground):
        name = f"files/{row}{'.jpg' if row % 2 else ''}.png"
        _as_people_store_them(mask, row).save(project.data / name)
        rows.append(f"{row}.jpg;{name}")
    (project.data / "my.csv").write_text("\n".join(rows))
    return project


def _as_people_store_them(mask: NDArray[np.bool_], number: int) -> Image.Image:
    """Black and white, numbers of objects, an alpha channel, or twice as large."""
    white = np.uint8(255) * mask
    if number % 4 == 0:
        return Image.fromarray(white)
    if number % 4 == 1:
        return Image.fromarray(mask.astype(np.uint8))
    if number % 4 == 2:
        return Image.fromarray(np.stack([white, white, white, white], -1), "RGBA")
    return Image.fromarray(white.repeat(2, 0).repeat(2, 1))


def make(project: Project, source: str = "files", **changes: object) -> dict[str, NDArray[np.generic]]:
    """All datasets of masks.h5 with masks from files."""
    external = str(project.data / source)
    return arrays(
        project, make_masks(project, **{"method": "external", "external": external, "previews": 0, **changes})
    )


def arrays(project: Project, _made: Path) -> dict[str, NDArray[np.generic]]:
    with project.open("masks") as given:
        masks = given.file("masks")
        return {name: masks[name][:] for name in SCHEMA if name in masks}


def digest(project: Project) -> str:
    with project.open("masks") as given:
        return given.file("masks").provenance.made_from["external"]


class Elsewhere:
    """A cluster whose worker is in another folder."""

    hardware = ()
    on = Context("cpu", Path()).on

    def compute(
        self,
        _name: str,
        work: engine.Work,
        tasks: Sequence[engine.Task],
        done: Callable[[engine.Block], None],
    ) -> None:
        here, sent = Path.cwd(), pickle.dumps(work)
        os.chdir("/")
        try:
            with pickle.loads(sent).open() as function:
                for task in reversed(tasks):
                    done(task.do(function))
        finally:
            os.chdir(here)


def test_files_of_the_true_masks_give_what_the_true_masks_give(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder and from a table, in one block or in many, here or elsewhere; K, side and flip unread."""
    expected = arrays(project, make_masks(project, method="foreground"))
    assert len(expected["row"]) + len(expected["val/row"]) == MASKED
    unread = {"side": "auto", "size": "top_k", "top_k": 10**6, "flip": True}
    found = [make(project, **unread)]
    before, made_from = project.path("masks").read_bytes(), digest(project)
    monkeypatch.setattr(stage.device, "forward_batch", lambda _: 7)
    monkeypatch.setattr(stage, "BATCHES", 1)
    found.append(make(project, **unread))
    assert project.path("masks").read_bytes() == before
    monkeypatch.chdir(project.data)
    params = MASKS.model_copy(update={"external": "my.csv"})
    with project.open("images", "erm", "maps") as given:
        context = Context("cpu", project.data / "scratch", Elsewhere())
        stage.masks(given, project.path("masks"), params, context)
    found.append(arrays(project, project.path("masks")))
    assert digest(project) == made_from
    for each in found:
        assert each.keys() - {"rest"} == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(each[name], array)
    with project.open("masks") as given:
        assert given.stated("masks", "method") == "external"


def test_changed_files_make_other_masks_and_unfinished_work_of_others_is_not_taken_up(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("at the very end")

    read: list[str] = []
    original = ExternalMasks.stored

    def stored(self: ExternalMasks, path: str, *how: object) -> object:
        read.append(path)
        return original(self, path, *how)

    monkeypatch.setattr(ExternalMasks, "stored", stored)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "write_previews", fail)
        with pytest.raises(RuntimeError, match="at the very end"):
            make(project)
    assert len(read) == MASKED
    before = make(project)
    assert len(read) == MASKED  # taken up
    first = digest(project)
    file = project.data / "files/0.png"
    stamp = file.stat()
    Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # its contents count
    after = make(project)
    assert len(read) == 2 * MASKED
    assert digest(project) != first
    np.testing.assert_array_equal(after["mask"][0], ~before["mask"][0])
    np.testing.assert_array_equal(after["mask"][1:], before["mask"][1:])


def empty(folder: Path) -> None:
    for name in ("3.jpg.png", "80.png"):
        Image.new("L", (9, 9)).save(folder / f"files/{name}")


def damaged(folder: Path) -> None:
    (folder / "files/4.png").write_bytes(b"no picture")


def missing(folder: Path) -> None:
    for name in ("7.jpg.png", "8.png", "90.png", "91.jpg.png"):
        (folder / f"files/{name}").unlink()


@pytest.mark.parametrize(
    ("source", "spoil", "message"),
    [
        ("files", empty, r"files/3.jpg.png: with .*, 2 of 94 masks have no foreground .* of 3.jpg;"),
        ("files", damaged, r"files/4.png: cannot be read as an image \(no known format of images\); re"),
        ("files", missing, "files: 4 of 94 images have no mask, such as 7.jpg, 8.jpg, 90.jpg; with "),
        ("my.csv", missing, "my.csv: 4 of 94 images have no mask, such as 7.jpg, 8.jpg, 90.jpg; with "),
    ],
)
def test_masks_that_are_none_are_one_line_and_leave_the_old_masks(
    project: Project, source: str, spoil: Callable[[Path], None], message: str
) -> None:
    project.path("masks").write_bytes(b"the old ones")
    spoil(project.data)
    with pytest.raises(MacError, match=message) as error:
        make(project, source)
    assert len(str(error.value).splitlines()) == 1
    assert project.path("masks").read_bytes() == b"the old ones"


def test_how_masks_were_read_is_told(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    for row in (0, 90):
        file = project.data / f"files/{row}.png"
        white = np.asarray(Image.open(file)) > 127
        Image.fromarray(np.where(white, np.uint8(150), np.uint8(100))).save(file)
    make(project)
    said = "the mask has few values, which may be numbers of objects or greys; they are read as numbers"
    assert f"2 masks: {said}" in caplog.messages


def test_images_of_the_test_split_need_no_mask(made: Project) -> None:
    with made.open("images") as given:
        assert (given.file("images")["split"][MASKED:] == 2).all()
    assert not (made.data / "files/94.png").exists()


def files(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return folder


def test_masks_are_named_as_their_images(tmp_path: Path) -> None:
    folder = files(tmp_path, "a/1.PNG", "a/2.jpg.gif", "a/2.txt", "b.c.png", "a/3.png", "a/3.png.png")
    paths = ["a/1.jpg", "a/2.jpg", "b.c.jpeg", "a/3.jpg", "a/3.png"]
    found = find(folder, paths, paths)
    assert list(found.files.values()) == ["a/1.PNG", "a/2.jpg.gif", "b.c.png", "a/3.png", "a/3.png.png"]


def test_a_table_may_name_a_mask_twice_and_more_images(tmp_path: Path) -> None:
    files(tmp_path, "m/1.png", "m/2.png")
    lines = [
        "mask,note,path",
        "m/1.png,,a\\1.jpg",
        "./m//1.png,,./a/2.jpg",
        "m\\2.png,,3.jpg",
        "x,,of none.jpg",
    ]
    (tmp_path / "my.CSV").write_text("\n".join(lines))
    found = find(tmp_path / "my.CSV", ["3.jpg", "a/1.jpg", "a/2.jpg"], []).files
    assert found == {"a/1.jpg": "m/1.png", "a/2.jpg": "m/1.png", "3.jpg": "m/2.png"}


@pytest.mark.parametrize(
    ("source", "rows", "paths", "message"),
    [
        ("nowhere", "", ["a.jpg"], "nowhere: no such folder; saliency.external should be a folder of"),
        ("no.csv", "", ["a.jpg"], r"no.csv: cannot be read \(No such file or directory\); saliency.ext"),
        ("other.csv", "", ["a.jpg"], "other.csv: no column mask; it has path, file"),
        ("my.csv", "a.jpg,../a.png", ["a.jpg"], "my.csv, line 2: path '../a.png' leaves the masks' folder"),
        ("my.csv", "a.jpg,/a.png", ["a.jpg"], "my.csv, line 2: path '/a.png' leaves the masks' folder"),
        ("my.csv", "a.jpg,a.png\na.jpg,b.png", ["a.jpg"], "line 3: path 'a.jpg' is there already;"),
        ("my.csv", "a.jpg,c.png", ["a.jpg"], "1 of 1 images have no mask, such as a.jpg; .* a row with"),
        ("here", "", ["d.jpg"], "here: d.png and d.tif are all named as the mask of d.jpg; keep one"),
        ("here", "", ["a.jpg", "a.gif"], "a.png: may be the mask of a.gif and of a.jpg; call it a.gif.p"),
        ("here", "", ["../a.jpg"], "here: path '../a.jpg' leaves the masks' folder"),
        ("here", "", ["link/a.jpg"], "here: path 'link/a.jpg' leaves the masks' folder"),
        ("here", "", ["x/y.jpg"], "1 of 1 images have no mask, .* need one: x/y.png for x/y.jpg"),
    ],
)
def test_what_names_no_mask_is_one_line(
    tmp_path: Path, source: str, rows: str, paths: list[str], message: str
) -> None:
    files(tmp_path, "a.png", "b.png", "here/a.png", "here/d.png", "here/d.tif", "there/a.png")
    (tmp_path / "here/link").symlink_to(tmp_path / "there")
    (tmp_path / "my.csv").write_text(f"path,mask\n{rows}")
    (tmp_path / "other.csv").write_text("path,file\n")
    with pytest.raises(MacError, match=message) as error:
        find(tmp_path / source, paths, paths)
    assert len(str(error.value).splitlines()) == 1


def test_a_mask_must_not_be_that_of_an_image_that_needs_none(tmp_path: Path) -> None:
    """What is wrong among the masks of such images alone does not matter."""
    folder = files(tmp_path, "a/1.png", "a/2.jpg.png", "3.png", "a/4.png", "a/4.gif")
    paths = ["a/1.jpg", "a/2.jpg", "3.jpg"]
    every = [*paths, "a/3.tif", "b/1.jpg", "a/2.tif", "a/4.jpg", "a/4.tif"]
    assert list(find(folder, paths, every).files.values()) == ["a/1.png", "a/2.jpg.png", "3.png"]
    with pytest.raises(MacError) as error:
        find(folder, paths, [*every, "a/1.tif"])
    assert str(error.value) == (
        f"{folder}/a/1.png: may be the mask of a/1.jpg and of a/1.tif; call it 1.jpg.png or 1.tif.png"
    )
    files(folder, "a/1.tif.png")
    assert find(folder, paths, [*every, "a/1.tif"]).files["a/1.jpg"] == "a/1.png"


def test_the_stage_sees_the_images_of_the_test_split(project: Project) -> None:
    with edited(project.path("images")) as images:
        images["path"][MASKED] = "2.tif"
    with pytest.raises(MacError, match=r"files/2.png: may be the mask of 2.jpg and of 2.tif; call it 2.jpg"):
        make(project)
