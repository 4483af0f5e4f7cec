"""Checks of numbers that a command was given."""

from types import SimpleNamespace

import pytest

from stages.base.config import require_at_least_zero, require_positive
from stages.base.errors import InputError


@pytest.mark.parametrize(
    "check, value, said",
    [
        (require_positive, 0, "--batch-size 0: at least 1"),
        (require_positive, -2, "--batch-size -2: at least 1"),
        (require_positive, 0.0, "--batch-size 0.0: expected a number above 0"),
        (require_positive, float("nan"), "--batch-size nan: expected a number above 0"),
        (require_positive, float("inf"), "--batch-size inf: expected a number above 0"),
        (require_at_least_zero, -1, "--batch-size -1: expected 0 or more"),
        (require_at_least_zero, float("nan"), "--batch-size nan: expected 0 or more"),
    ],
)
def test_a_number_out_of_range_is_named_as_it_was_given(check, value, said):
    with pytest.raises(InputError) as e:
        check(SimpleNamespace(fine=1, batch_size=value), "fine", "batch_size")
    assert str(e.value) == said


def test_numbers_in_range_pass():
    require_positive(SimpleNamespace(a=1, b=1e-9), "a", "b")
    require_at_least_zero(SimpleNamespace(a=0, b=0.0), "a", "b")
