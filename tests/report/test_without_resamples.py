"""What the tables say of intervals that were not asked for, and of one failed row."""

from types import SimpleNamespace

from adcli.options import _failures
from stages.report.sage import every_figure
from stages.report.vidad import _definition


def test_no_resamples_are_no_intervals():
    assert "Intervals: none." in _definition(0, 0) and "Intervals: none." in every_figure([], 0, 0).note
    assert "Intervals: 95%, 9 stratified resamples" in _definition(9, 0)


def test_one_failed_row_is_one_row():
    said = [_failures(SimpleNamespace(errors=n, final=0, first_errors=("x",)))[0] for n in (1, 2)]
    assert said[0].startswith("1 row failed (") and said[1].startswith("2 rows failed (")
