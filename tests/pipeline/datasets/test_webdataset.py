"""Tar shards: what webdataset itself reads there, and hostile ones."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.compute.context import Context
from pipeline.datasets import webdataset
from pipeline.datasets.record import Dataset
from pipeline.datasets.sources import TarMember
from pipeline.errors import MacError
from pipeline.params.dataset import DatasetParams
from pipeline.steps.prepare import prepare
from tests.conftest import nothing, open_file


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def pack(file: Path, members: list[tuple[str, bytes]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, contents in members:
            info = tarfile.TarInfo(name)
            info.size = len(contents)
            tar.addfile(info, io.BytesIO(contents))


def read(root: Path, **options: object) -> Dataset:
    dataset = webdataset.read(root, webdataset.Options.model_validate(options))
    dataset.check()
    return dataset


def shards(root: Path) -> None:
    """Three splits, four images each, in two shards for training."""
    value = 0
    for shard in ("train-000000", "train-000001", "val-000000", "test-000000"):
        members: list[tuple[str, bytes]] = [("__about__.json", b"no JSON")]
        for number in range(2 if "train" in shard else 4):
            about = {"place": "sofa" if value % 4 < 2 else "bench", "night": value % 3, "more": [1]}
            key = f"a.b/{value:04d}"
            members += [(f"{key}.PNG", png(value)), (f"{key}.cls", str(value % 2).encode())]
            members += [(f"{key}.json", json.dumps(about).encode()), (f"{key}.depth.npy", b"x" * number)]
            value += 1
        pack(root / f"{shard}.tar", members)


def test_it_is_what_webdataset_reads(tmp_path: Path) -> None:
    library = pytest.importorskip("webdataset").tariterators
    shards(tmp_path)
    dataset = read(tmp_path, attribute=["place", "night"])
    names = sorted(path.name for path in tmp_path.glob("*.tar"))
    found = []
    for name in names:
        with (tmp_path / name).open("rb") as stream:
            files = library.tar_file_expander([{"url": name, "stream": stream}])
            found += [sample for sample in library.group_by_keys(files) if "png" in sample]
    assert len(found) == len(dataset.records) == 12
    for record, sample in zip(dataset.records, found, strict=True):
        shard, about = sample["__url__"], json.loads(sample["json"])
        assert record.image.name == f"{shard}/{sample['__key__']}.PNG"
        assert np.array_equal(
            np.asarray(record.image.load(tmp_path)), np.asarray(Image.open(io.BytesIO(sample["png"])))
        )
        assert dataset.groups.classes[record.label] == sample["cls"].decode()
        assert dataset.groups.attributes[record.attribute] == f"{about['place']}+{about['night']}"
        assert ("train", "val", "test")[record.split] == shard.partition("-")[0]


def test_splits_are_folders_a_key_or_drawn(tmp_path: Path) -> None:
    names = []
    for number in range(12):
        split = ("train", "val", "test")[number % 3]
        about = json.dumps({"label": number % 2, "part": split}).encode()
        names.append([(f"{number}.png", png(number)), (f"{number}.json", about)])
        pack(tmp_path / "folders" / split / f"{number:02d}.tar", names[-1])
        pack(tmp_path / "words" / f"photos1k-{split}_{number}.tar", names[-1])
    pack(tmp_path / "one" / "all.tar", [member for each in names for member in each])
    by_folder = {
        r.image.name.split("/")[-1]: r.split for r in read(tmp_path / "folders", label="label").records
    }
    by_word = {r.image.name.split("/")[-1]: r.split for r in read(tmp_path / "words", label="label").records}
    by_key = {
        r.image.name.split("/")[-1]: r.split
        for r in read(tmp_path / "one", label="label", split="part").records
    }
    assert by_folder == by_word == by_key == {f"{number}.png": number % 3 for number in range(12)}
    drawn = read(tmp_path / "one", label="label")
    assert sorted(record.split for record in drawn.records) == [0] * 8 + [1] * 2 + [2] * 2
    (tmp_path / "words/photos1k-test_2.tar").rename(tmp_path / "folders/val/test-2.tar")
    with pytest.raises(MacError, match=r"folders/val/test-2.tar: its path says two splits; name it by one"):
        read(tmp_path / "folders", label="label")


def test_val_alone_is_drawn_of_train(tmp_path: Path) -> None:
    for split in ("train", "test"):
        members = [[(f"{n}.png", png(n)), (f"{n}.cls", str(n % 2).encode())] for n in range(8)]
        pack(tmp_path / f"{split}-0.tar", [member for each in members for member in each])
    dataset = read(tmp_path, val=0.25)
    assert [record.split for record in dataset.records[:8]] == [2] * 8
    assert sorted((r.split, r.label) for r in dataset.records[8:]) == [(0, 0)] * 3 + [(0, 1)] * 3 + [
        (1, 0), (1, 1)
    ]  # fmt: skip
    assert dataset.notes == ("no image is in the split val, so 2 images of train are drawn for it",)


def test_prepare_writes_the_images_and_says_which_is_damaged(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "data" / "images.h5"
    shards(raw)
    params = DatasetParams(
        name="webdataset", root=str(raw), options={"attribute": "place"}, stored_size=4, to_stored="squash",
        range="auto", interpolation="bilinear", storage="pixels", on_error="fail", on_duplicates="fail",
    )  # fmt: skip
    prepare(nothing(raw), out, params, Context("cpu", tmp_path / "scratch"))
    with open_file(out) as artefact:
        paths = [path.decode().split("/")[-1] for path in artefact["path"][:]]
        for path, image, label in zip(paths, artefact["image"][:], artefact["label"][:], strict=True):
            value = int(path.removesuffix(".PNG"))
            assert (image == value).all()
            assert label == value % 2
    pack(raw / "train-000000.tar", [("x.png", png(99)[:40]), ("x.cls", b"0"), ("x.json", b'{"place": null}')])
    with pytest.raises(
        MacError, match=r"train-000000.tar/x.png: cannot be read as an image .* take it out of the"
    ):
        prepare(nothing(raw), out, params, Context("cpu", tmp_path / "scratch"))


def test_an_image_that_changes_is_read_again(tmp_path: Path) -> None:
    shards(tmp_path)
    image = read(tmp_path).records[0].image
    assert isinstance(image, TarMember)
    stamp = image.stamp(tmp_path)
    assert image.stamp(tmp_path) == stamp
    shards(tmp_path)
    assert image.stamp(tmp_path) != stamp


def info(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **more: str) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, size, "/etc/passwd"
    made.pax_headers = more
    return made


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (info("../1.png"), "the name '../1.png' leads out of the shard"),
        (info("/etc/1.png"), "the name '/etc/1.png' leads out of the shard"),
        (info("a\\1.png"), "the name 'a\\\\1.png' leads out of the shard"),
        (info("1.png", tarfile.SYMTYPE), "1.png is a link, a device or the like"),
        (info("1.png", tarfile.LNKTYPE), "1.png is a link, a device or the like"),
        (info("1.png", tarfile.FIFOTYPE), "1.png is a link, a device or the like"),
        (info("1.png", tarfile.CHRTYPE), "1.png is a link, a device or the like"),
        (info("1.png", size=10**12), "1.png ends behind the end of the file"),
        (info("1.png", size=0, **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), "cannot be read as a"),
        (info("1.png", GNU__="1"), "1.png: no cls, neither as an extension nor in its JSON"),
    ],
)  # fmt: skip
def test_a_hostile_member_is_one_line(tmp_path: Path, member: tarfile.TarInfo, message: str) -> None:
    header = member.tobuf(tarfile.PAX_FORMAT)
    (tmp_path / "train-0.tar").write_bytes(header + bytes(10240))
    with pytest.raises(MacError) as error:
        read(tmp_path)
    found = str(error.value)
    assert message in found or message.replace("1.png: ", "sample 1: ") in found
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.png", b""), ("1.jpg", b"")], "sample 1: has two images, 1.png and 1.jpg; keep one"),
        ([("1.png", b""), ("1.png", b"")], "has two members 1.png; keep one"),
        ([("1.png", b""), ("1.cls", b"\xff")], "sample 1: cls is not UTF-8 text"),
        ([("1.png", b""), ("1.json", b"[" * 100_000)], "sample 1: is not JSON"),
        (
            [("1.png", b""), ("1.cls", bytes(2**20 + 1))],
            "1.cls has 1,048,577 bytes, expected at most 1,048,576",
        ),
        (
            [("1.png", b""), ("1.cls", b"0"), ("2.input.png", b""), ("2.cls", b"1"), ("3.cls", b"1")],
            "sample 2: has no image, as 2 of 3 samples; name it such as 2.png",
        ),
        ([("README", b"")], "no images in the shards"),
    ],
)
def test_a_hostile_sample_is_one_line(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    pack(tmp_path / "train-0.tar", members)
    with pytest.raises(MacError) as error:
        read(tmp_path)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_hostile_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MacError, match=r"no .tar files; dataset.root should be the folder of the shards"):
        read(tmp_path)
    shards(tmp_path)
    whole = (tmp_path / "train-000000.tar").read_bytes()
    for contents in (b"", b"no tar file", whole[:3000], whole[:1024] + b"x" * 512 + whole[1536:]):
        (tmp_path / "train-000000.tar").write_bytes(contents)
        with pytest.raises(MacError, match=r"^\S*train-000000.tar") as error:
            read(tmp_path)
        assert len(str(error.value).splitlines()) == 1
    (tmp_path / "train-000000.tar").write_bytes(whole)
    (tmp_path / "more.tar").write_bytes(whole)
    with pytest.raises(MacError, match=r"the names of some shards say no split \(more.tar\), but others do"):
        read(tmp_path)
    (tmp_path / "more.tar").rename(tmp_path / "train-2.tar.gz")
    with pytest.raises(MacError, match=r"train-2.tar.gz: is compressed, .* unpack it to a .tar"):
        read(tmp_path)
    (tmp_path / "train-2.tar.gz").unlink()
    outside = tmp_path.parent / f"{tmp_path.name}.tar"
    outside.write_bytes(whole)
    (tmp_path / "train-2.tar").symlink_to(outside)
    with pytest.raises(MacError, match="path 'train-2.tar' leaves the dataset's folder"):
        read(tmp_path)
