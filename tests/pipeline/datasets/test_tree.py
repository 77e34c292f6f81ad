"""Trees of class folders: what is a split, what is a class, and what is neither, by samples of each kind."""

from pathlib import Path

import pytest
from PIL import Image

from pipeline.datasets import folder, tree
from pipeline.datasets.listing import listed
from pipeline.datasets.record import Dataset
from pipeline.errors import MacError

SPLITS = ("train", "val", "test")
BOTH = ("cat", "dog")


def below(*folders: str) -> list[str]:
    """Class folders cat and dog in each of the folders."""
    names = []
    for name in folders:
        names += [f"{name}/cat", f"{name}/dog"]
    return names


def read(root: Path, folders: list[str], files: tuple[str, ...] = (), count: int = 2) -> Dataset:
    """The dataset of a tree with images in some folders, and of further files, which may be no images."""
    picture = Image.new("RGB", (2, 2))
    for name in folders:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture.save(root / name / f"{number}.png")
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if Path(name).suffix in (".png", ".jpg"):
            picture.save(root / name)
        else:
            (root / name).write_text("no image")
    return folder.read(root, folder.Options(metadata=None))


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([*below(*SPLITS), "extra/a"], "some folders have names of splits (test, train, val), others no"),
        ([*below(*SPLITS), "extra"], "others not (extra); if they are splits, let dataset.root be"),
        ([*below(*SPLITS), *below("x/train", "x/test")], "others not (x); if they are splits"),
        (below("x/train", "x/val", "x/test"), "holds the one folder x, which would be the only class; "),
        (below("a/b"), "holds the one folder a/b, which would be the only class; dataset.root should be "),
        (below("train/images", "val/images", "test/images"), "move the folders in images one level up"),
        (below("train/train", "val/val", "test/test"), "the folders test, train, val in test, train"),
        ([*below("seg_train/seg_train", "seg_test/seg_test"), "seg_pred"], "(seg_test, seg_train), others "),
        (below("train_images", "valid_images"), "all folders would be classes, but have names of "),
        (below("Test Set", "Training Set"), "names of splits (Test Set, Training Set)"),
        (below("my-test", "my-train"), "names of splits (my-test, my-train)"),
        (below("trainset", "testset"), "names of splits (testset, trainset)"),
        (below("TrainData", "TestData"), "names of splits (TestData, TrainData)"),
        (below("train2017", "val2017"), "names of splits (train2017, val2017)"),
        (below("xray_train", "xray_test"), "names of splits (xray_test, xray_train)"),
        (["trainA", "trainB", "testA"], "names of splits (testA, trainA, trainB)"),
        (below("train", "eval", "test"), "names of splits (eval, test, train)"),
        (below("fold1", "fold2"), "names of splits (fold1, fold2)"),
        (["bus", "Train", "car"], "some folders have names of splits (Train), others not (bus, car)"),
        (["cat", "dev", "dog"], "some folders have names of splits (dev), others not (cat, dog)"),
        ([f"cat/{split}" for split in SPLITS] + ["dog"], "cat: holds folders with names of splits (test"),
        (below("0", "1", "2"), "the folders 0, 1, 2 hold the same folders, so they could"),
        (below("train", "val", "valid", "test"), "the folders val, valid are all the split val; keep one"),
        (below("imagesTr", "imagesTs"), "names of splits (imagesTr, imagesTs)"),
        (["imagesTr", "labelsTr"], "the folders imagesTr, labelsTr would be the classes, but have n"),
        (["query", "gallery"], "the folders gallery, query would be the classes, but have names of"),
        (below("Xtrain", "Xtest"), "names of splits (Xtest, Xtrain)"),
        (below("tr", "te"), "all folders would be classes, but have names of splits (te, tr)"),
        (below("trn", "val", "tst"), "names of splits (trn, tst, val)"),
        (below("tr_images", "te_images"), "names of splits (te_images, tr_images)"),
        (["cat/tr", "cat/ts", "dog"], "cat: holds folders with names of splits (tr, ts)"),
        (below("images", "masks"), "the folders images, masks would be the classes, but have n"),
        (below("train"), "has train, but no images in val, test; move a share of each class to v"),
        (below("train", "test"), "or let dataset.root be "),
        (list(SPLITS), "6 images, but none in a class folder; expected train/<class>/<image>"),
        ([*below("train", "val"), "test/cats"], "no training image is of class cats, which test has; t"),
        ([*below("train", "test"), "val/Cat"], "differ in their spelling alone: 'Cat' (2) = 'cat' (4)"),
        (["caf\u00e9", "cafe\u0301"], "'cafe\\u0301' (2) = 'caf\\xe9' (2)"),
        (["1", "2", "1.0"], "'1' (2) = '1.0' (2)"),
        (["dog", "dog "], "'dog' (2) = 'dog ' (2)"),
        (["cat", "dog", "nan"], "the folders nan (2 images) say that the class is not known"),
    ],
)  # fmt: skip
def test_a_tree_that_could_be_misread_is_refused(tmp_path: Path, folders: list[str], message: str) -> None:
    with pytest.raises(MacError) as error:
        read(tmp_path, folders)
    assert str(error.value).startswith(str(tmp_path))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (below("TRAIN", "Validation", "Testing"), BOTH),
        (["0", "1"], ("0", "1")),
        (["bullet_train", "bus", "test tube"], ("bullet_train", "bus", "test tube")),
        (["crease", "fold"], ("crease", "fold")),
        (["de", "te", "tr"], ("de", "te", "tr")),
        (["cat", "dog", "lost+found", "@eaDir", "$RECYCLE.BIN", "__MACOSX", ".old"], BOTH),
    ],
)
def test_other_trees_are_read(tmp_path: Path, folders: list[str], classes: tuple[str, ...]) -> None:
    dataset = read(tmp_path, folders, count=3)
    assert dataset.groups.classes == classes
    assert {record.split for record in dataset.records} == {0, 1, 2}


def test_what_is_not_used_is_told_by_kind_and_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    nothing = ("cat/Thumbs.db", "cat/.DS_Store", "cat/._1.png", "desktop.ini", "__MACOSX/._2.png")
    others = ("dog/a.psd", "dog/b.npy", "dog/c.mp4", "dog/noext", "cat/b.npy", "docs/a.txt", "1.png")
    dataset = read(tmp_path, ["cat", "dog", "cat/@eaDir"], (*nothing, *others, "cat/.x.jpg"), count=3)
    assert len(dataset.records) == 6
    unused, empty = dataset.notes
    kinds = unused.removeprefix("not used: ").split("; ")
    assert kinds[:2] == ["3 .png in @eaDir (cat/@eaDir 3)", "2 .npy (cat 1, dog 1)"]
    assert sorted(kinds[2:]) == [
        "1 .jpg hidden (cat 1)", "1 .mp4 (dog 1)", "1 .png above the class folders (. 1)", "1 .psd (dog 1)",
        "1 .txt (docs 1)", "1 without a suffix (dog 1)",
    ]  # fmt: skip
    assert empty == "no images in the folders docs, empty, so they are no classes"


def test_masks_beside_the_images_of_a_class_are_not_used(tmp_path: Path) -> None:
    """As in COVID-19 Radiography."""
    dataset = read(tmp_path, ["cat/images", "cat/masks", "dog", "dog/x/GT", "dog/x"], count=3)
    names = [record.image.name for record in dataset.records]
    assert {str(Path(name).parent) for name in names} == {"cat/images", "dog", "dog/x"}
    assert dataset.notes == ("not used: 6 .png of masks, beside images (cat/masks 3, dog/x 3)",)
    assert len(read(tmp_path / "b", ["cat/labels", "dog"], count=3).records) == 6  # nothing else is there


def test_what_is_not_used_is_one_line_however_much_it_is(tmp_path: Path) -> None:
    odd = [f"cat/1.2.840.{number}" for number in range(30)] + [f"cat/1.x{number}" for number in range(30)]
    (note,) = read(tmp_path, list(BOTH), tuple(odd), count=3).notes
    assert note.startswith("not used: 30 without a suffix (cat 30); 1 .x0 (cat 1); ")
    assert note.endswith("; 23 more")


def test_classes_without_images_in_a_split_and_folders_in_all_classes_are_told(tmp_path: Path) -> None:
    dataset = read(tmp_path / "a", [*below(*SPLITS), "train/cow", "val/cow"])
    assert dataset.notes == ("no test image is of class cow",)
    dataset = read(tmp_path / "b", below("Art", "Real"), count=4)
    assert dataset.notes == ("the classes are Art, Real; the folders in them (cat, dog) are not",)


def test_links_are_entered_but_neither_in_circles_nor_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    read(root, ["cat", ".store/dog"], count=3)
    (root / "dog").symlink_to(".store/dog")
    (root / "cat" / "again").symlink_to("..")
    (root / "gone").symlink_to("nowhere")
    (tmp_path / "link").symlink_to(root)
    dataset = read(tmp_path / "link", [])
    assert [record.image.name for record in dataset.records] == [
        f"{c}/{i}.png" for c in BOTH for i in range(3)
    ]
    assert "1 link to a folder above it (cat 1)" in dataset.notes[0]
    assert "1 broken link (. 1)" in dataset.notes[0]
    read(tmp_path / "other", ["cow"])
    (root / "cat" / "notes").symlink_to(tmp_path / "other")
    dataset = read(root, [])
    assert len(dataset.records) == 6
    assert "1 link that leads out of the folder (cat 1)" in dataset.notes[0]
    (root / "cow").symlink_to(tmp_path / "other" / "cow")
    with pytest.raises(MacError, match="cow: is a link to .*, which leaves the dataset's folder; copy"):
        read(root, [])


def test_links_between_folders_are_each_entered_once(tmp_path: Path) -> None:
    """Else there would be a path for each order of the folders."""
    names = [f"c{number}" for number in range(9)]
    read(tmp_path, names, count=1)
    for name in names:
        for other in names:
            if other != name:
                (tmp_path / name / f"to_{other}").symlink_to(f"../{other}")
    found = listed(tmp_path, "")
    assert len(found.files) == 2 * len(names)  # each directly, and by one link
    assert {kind for kind, _ in found.unused} == {
        "link to a folder above it", "link to a folder that another link leads to"
    }  # fmt: skip


def test_a_link_to_an_image_that_is_gone_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    """As in a git-annex repository whose files were not fetched: they are not left out in silence."""
    read(tmp_path, list(BOTH), count=3)
    (tmp_path / "cat" / "3.png").symlink_to("nowhere.png")
    dataset = read(tmp_path, [])
    assert dataset.records[3].image.name == "cat/3.png"
    with pytest.raises(MacError, match="cat/3.png: cannot be read as an image"):
        dataset.records[3].image.load(tmp_path)


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "jif", "JPG", "avif", "jp2", "tga", "pnm", "qoi", "dib"])
def test_all_that_can_be_read_is(tmp_path: Path, suffix: str) -> None:
    dataset = read(tmp_path, list(BOTH), count=3)
    form = "JPEG" if suffix.lower() in ("jfif", "jpe", "jif", "jpg") else None
    Image.new("RGB", (8, 8), (200, 30, 40)).save(tmp_path / "cat" / f"x.{suffix}", format=form)
    dataset = read(tmp_path, [])
    assert not dataset.notes
    record = next(r for r in dataset.records if r.image.name == f"cat/x.{suffix}")
    red, green, blue = record.image.load(tmp_path).convert("RGB").getpixel((4, 4))  # type: ignore[misc]
    assert abs(red - 200) + abs(green - 30) + abs(blue - 40) < 6


def test_heic_is_read_by_an_extra_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    read(tmp_path, list(BOTH), count=3)
    heif.from_pillow(Image.new("RGB", (16, 16), (200, 30, 40))).save(tmp_path / "cat" / "x.heic")
    (tmp_path / "dog" / "x.jpg").write_bytes((tmp_path / "cat" / "x.heic").read_bytes())
    found = [r.image for r in read(tmp_path, []).records if "/x." in r.image.name]
    assert [image.name for image in found] == ["cat/x.heic", "dog/x.jpg"]
    for image in found:
        red, *_ = image.load(tmp_path).convert("RGB").getpixel((4, 4))  # type: ignore[misc]
        assert abs(red - 200) < 6
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    Image.OPEN.pop("HEIF", None)
    Image.ID[:] = [name for name in Image.ID if name != "HEIF"]
    with pytest.raises(MacError, match=r"cat/x.heic: .*pip install 'mac-robust\[heif\]'"):
        found[0].load(tmp_path)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("seg_train", "train"),
        ("TEST_v2", "test"),
        ("dev-set", "val"),
        ("3-fold", "fold"),
        ("ＴＲＡＩＮ", "train"),
        ("device", None),
        ("attest", None),
        ("fold", None),
    ],
)
def test_words_of_splits(name: str, split: str | None) -> None:
    found = tree.split_in(name)
    assert (found and found[0]) == split
