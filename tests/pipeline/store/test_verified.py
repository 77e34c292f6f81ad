import os
from pathlib import Path

import pytest

from pipeline import store
from pipeline.errors import MacError
from pipeline.schemas import features
from pipeline.schemas.masks import SCHEMA
from pipeline.store import verified
from tests.conftest import edited
from tests.pipeline.store import masks_file


def test_what_was_verified_is_not_read_through_again_until_it_changes(
    masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_arguments: object) -> str:
        raise AssertionError

    monkeypatch.setattr(verified, "file_digest", never)
    with masks_file.opened(masks):
        pass
    os.utime(masks)
    with pytest.raises(AssertionError), masks_file.opened(masks):
        pass


def test_a_note_of_another_user_is_not_believed(masks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size, time of change and inode can be arranged; the user's secret cannot."""
    with edited(masks, sealed=True) as file:
        file["row"][0] = -1
    with masks_file.opened(masks):  # it is noted as checked
        pass
    monkeypatch.setenv("XDG_CACHE_HOME", str(masks.parent / "cache"))
    verified._secret.cache_clear()
    with pytest.raises(MacError, match="dataset 'row' has -1"), masks_file.opened(masks):
        pass
    secret = masks.parent / "cache/mac-robust/secret"
    assert (secret.stat().st_mode & 0o777, len(secret.read_text())) == (0o600, 64)
    assert verified._secret() == secret.read_text()
    verified._secret.cache_clear()


def test_without_a_secret_a_note_is_believed_by_this_process_alone(
    masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(masks))  # a file
    verified._secret.cache_clear()
    assert not verified.is_remembered(masks, verified.state_of(masks), SCHEMA)
    with masks_file.opened(masks):
        assert verified.is_remembered(masks, verified.state_of(masks), SCHEMA)
    verified._secret.cache_clear()
    assert not verified.is_remembered(masks, verified.state_of(masks), SCHEMA)
    verified._secret.cache_clear()


def test_a_link_from_elsewhere_does_not_have_the_bytes_read_again(
    masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified, "file_digest", lambda *_: "")
    (masks.parent / "cached").hardlink_to(masks)  # as DVC does, which also takes away the right to write
    masks.chmod(0o444)
    with masks_file.opened(masks):
        pass


def test_a_note_that_is_a_link_or_a_pipe_is_replaced(masks: Path) -> None:
    note, other = verified.note_of(masks), masks.parent / "precious"
    other.write_text("precious")
    note.unlink()
    note.symlink_to(other)
    with masks_file.opened(masks):
        assert not note.is_symlink()
    assert other.read_text() == "precious"
    note.unlink()
    os.mkfifo(note)
    with masks_file.opened(masks):
        assert note.is_file()


def test_a_note_of_other_checks_is_not_believed(masks: Path) -> None:
    assert verified.is_remembered(masks, verified.state_of(masks), SCHEMA)
    assert not verified.is_remembered(masks, verified.state_of(masks), features.SCHEMA)


def test_a_file_without_a_note_is_read_once_for_its_kind_and_its_contents(
    masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    digest = verified.file_digest
    monkeypatch.setattr(
        verified, "file_digest", lambda file, start: (read.append(file), digest(file, start))[1]
    )
    verified.note_of(masks).unlink()
    assert store.stated_kind(masks) == "masks"
    with masks_file.opened(masks):
        pass
    assert read == [masks]
