"""The one exception that a user's mistake raises, and what others say in a line."""

TRACEBACK = "LOSIA_TRACEBACK"  # set in the environment, it shows the error behind a `UserError`


class UserError(Exception):
    """What is wrong, where, and what to do, in one sentence; `losia` prints it and exits with 2."""


def first_line(error: Exception) -> str:
    """What an exception says, in one line; its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
