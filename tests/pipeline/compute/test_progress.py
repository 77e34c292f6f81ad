import logging
from types import SimpleNamespace

import pytest

from pipeline.compute import progress


def test_progress_is_logged_now_and_then_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr("pipeline.compute.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    no_terminal = SimpleNamespace(isatty=lambda: False)
    monkeypatch.setattr("pipeline.compute.progress.sys", SimpleNamespace(stderr=no_terminal))
    caplog.set_level(logging.INFO, "mac")
    for _item in progress.track(range(7), "reading", 7, "images"):
        now[0] += 10.0
    assert [record.getMessage() for record in caplog.records] == [
        "reading: 3 of 7 images, 0/s, 40 s left",
        "reading: 6 of 7 images, 0/s, 10 s left",
    ]
