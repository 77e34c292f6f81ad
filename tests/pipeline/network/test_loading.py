import threading
from collections.abc import Iterator

import pytest

from pipeline.network.loading import prefetch


def test_items_come_in_order_and_errors_reach_the_consumer() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("in the thread")

    seen = []
    with pytest.raises(ValueError, match="in the thread"):
        for item in prefetch(items()):
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4]


def test_a_consumer_that_leaves_stops_the_thread() -> None:
    before = threading.active_count()
    numbers = prefetch(iter(range(10**9)))
    assert next(numbers) == 0
    numbers.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
