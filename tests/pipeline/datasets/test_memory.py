"""Threads that decode large images wait for each other."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.datasets import memory
from pipeline.datasets.memory import announce, holding_images


def test_the_images_that_are_held_have_few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST", 100)
    held, highest, lock = [0], [0], threading.Lock()

    def work(pixels: int) -> int:
        with holding_images():
            announce(pixels)
            with lock:
                held[0] += pixels
                highest[0] = max(highest[0], held[0])
            time.sleep(0.01)
            with lock:
                held[0] -= pixels
        return pixels

    sizes = [60, 30, 30, 10, 90, 50, 50, 100] * 3
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, sizes)) == sizes
    assert 60 < highest[0] <= 100


def test_an_image_that_is_larger_than_all_is_decoded_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST", 100)
    with holding_images():
        announce(1000)
        announce(1000)  # its mask, which would wait for itself
    with pytest.raises(RuntimeError), holding_images():
        announce(1000)
        raise RuntimeError  # what a block held is free again
    with holding_images():
        announce(100)
    announce(10**9)  # nobody says for how long it is held, so it is not counted
    assert memory._held["pixels"] == 0
