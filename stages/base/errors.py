"""The errors that a user can mend. The command line prints them in one line and exits with 2."""


class InputError(Exception):
    """Wrong usage or input: one sentence with the path, column or option, and what to do about it."""


class ImageError(InputError):
    """One image that cannot be decoded. Stages turn it into a row with `error`."""


class TooManyErrors(InputError):
    """`--max-errors` rows failed one after another: the cause is most likely common to all rows."""
