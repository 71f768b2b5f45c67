"""When a response can no longer be the single letter that would make it right."""

import string

_NEUTRAL = frozenset(string.punctuation + "\0\ufffd")


def settled(text: str) -> bool:
    """Whether no response that begins with `text` is a single letter, or its verdict is known.

    MMLU's generative score takes the first line, strips it, drops punctuation, lowers it and
    compares with one letter, and nulls at an end compare as nothing. Two characters that are none
    of these stay two whatever follows, so that the verdict is "wrong" from there on. (The
    replacement character stands for a part of a character that the next token may complete, so it
    is not counted.)
    """
    return sum(not (character.isspace() or character in _NEUTRAL) for character in text) >= 2
