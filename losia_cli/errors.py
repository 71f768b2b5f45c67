"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """What is wrong, where, and what to do, in one sentence; `losia` prints it and exits with 2."""
