"""The time left: of batches, and of work that comes before rows. The clock is the test's."""

import pytest

from stages.base import progress as module
from stages.base.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A list whose first item is the time, s."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def batch(progress, clock, seconds, rows):
    clock[0] += seconds
    for _ in range(rows):
        progress.advance()
        clock[0] += 1e-6


def test_no_row_of_a_batch_is_taken_for_the_batch(clock, capsys):
    """One row after 40 s of 16 is no pace of 40 s a row: the old line said 12,280 s left."""
    progress = Progress("score", 308, quiet=False)
    batch(progress, clock, 40, 16)
    assert progress.seconds_left() is None
    batch(progress, clock, 40, 16)
    assert progress.seconds_left() == pytest.approx((308 - 32) * 2.5, rel=1e-3)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["score: 1/308 rows, 0 failed", "score: 17/308 rows, 0.40/s, 728 s left, 0 failed"]


def test_rows_one_by_one_have_a_pace_from_the_second_on(clock):
    progress = Progress("caption", 10, quiet=True)
    for seconds in (7, 5):
        batch(progress, clock, seconds, 1)
    assert progress.seconds_left() == pytest.approx(8 * 7, rel=1e-3)


def test_images_that_are_fitted_to_count_from_the_start_and_at_their_own_pace(clock, capsys):
    """60 s of loading libraries are nobody's; 100 images at 0.1 s; 200 rows are taken for as long until they are known
    to take 0.5 s. What a fit does at its end, and the fit itself, say nothing of the rows."""
    progress = Progress("score", 200, quiet=False)
    clock[0] += 60
    progress.expect(100, "images fitted to")
    clock[0] += 1
    progress.prepare(10)
    assert progress.seconds_left() == pytest.approx(90 * 0.1 + 200 * 0.1)
    clock[0] += 9
    progress.prepare(90)
    clock[0] += 70
    progress.prepare()
    assert progress.seconds_left() == pytest.approx(200 * 0.1)
    batch(progress, clock, 5, 10)
    assert progress.seconds_left() == pytest.approx(190 * 0.1)
    batch(progress, clock, 5, 10)
    assert progress.seconds_left() == pytest.approx(180 * 0.5, rel=1e-3)
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "score: 10/100 images fitted to, 29 s left, 0 failed"


def test_the_first_line_comes_at_once_where_much_is_left(clock, capsys):
    progress = Progress("score", 1000, quiet=False)
    progress.expect(1000, "images fitted to")
    for _ in range(3):
        clock[0] += 1.1
        progress.prepare(10)
    assert capsys.readouterr().err.splitlines() == ["score: 20/1000 images fitted to, 218 s left, 0 failed"]
