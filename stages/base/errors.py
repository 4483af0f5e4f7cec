"""The errors that a user can mend. The command line prints them in one line and exits with 2."""


class InputError(Exception):
    """Wrong usage or input: one sentence with the path, column or option, and what to do about it."""


class ImageError(InputError):
    """One image that cannot be decoded. Stages turn it into a row with `error`."""


class TooManyErrors(InputError):
    """`--max-errors` rows failed one after another: the cause is most likely common to all rows."""


LONGEST = 300  # characters of a library's message


def first_line(error: BaseException) -> str:
    """What a library's error says, in one line for a message: mostly its first line; the name of the error where it
    says nothing."""
    return _lines(error)[0][:LONGEST]


def last_line(error: BaseException) -> str:
    """Likewise the last line, where the first one is a heading (torch's `load_state_dict`)."""
    return _lines(error)[-1].strip()[:LONGEST]


def _lines(error: BaseException) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]


def cannot_be_loaded(what: str, error: BaseException) -> InputError:
    """what: the option and the name of a model, such as `--backbone /models/vit`."""
    return InputError(f"{what}: cannot be loaded ({first_line(error)})")
