"""Work done ahead of its consumer: order, bound, errors."""

import threading
import time

import pytest

from stages.base.errors import ImageError
from stages.base.prefetch import Prefetch


def test_results_come_in_order_and_an_image_that_cannot_be_read_in_its_place():
    def load(n: int) -> int:
        time.sleep(0.002 * (5 - n))  # the later, the sooner done
        if n == 3:
            raise ImageError("three: cut off")
        return n * n

    with Prefetch(load, range(5), workers=5, ahead=5) as loaded:
        results = list(loaded)
        assert not loaded
    assert [item for item, _ in results] == [0, 1, 2, 3, 4]
    assert [r for n, r in results if n != 3] == [0, 1, 4, 16]
    assert isinstance(results[3][1], ImageError) and str(results[3][1]) == "three: cut off"


def test_no_more_is_taken_in_advance_than_was_asked_for():
    taken, release = [], threading.Event()

    def items():
        for n in range(100):
            taken.append(n)
            yield n

    with Prefetch(lambda n: release.wait(10), items(), workers=2, ahead=3) as loaded:
        assert taken == [0, 1, 2] and not loaded.ready()
        release.set()
        assert next(loaded) == (0, True) and taken == [0, 1, 2, 3]


def test_other_errors_are_raised_where_their_item_comes():
    with Prefetch(lambda n: 1 // n, [1, 0], workers=1, ahead=2) as loaded:
        assert next(loaded) == (1, 1)
        with pytest.raises(ZeroDivisionError):
            next(loaded)
