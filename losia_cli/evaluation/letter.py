"""When a response can no longer be the single letter that would make it right."""

import string

_NEUTRAL = frozenset(string.punctuation + string.whitespace + "\ufffd")


def settled(text: str) -> bool:
    """Whether no response that begins with `text` is a single letter, or its verdict is known.

    MMLU's generative score takes the first line, strips it, drops punctuation, lowers it and
    compares with one letter. Two characters that are neither punctuation nor blank stay two
    whatever follows, so that the verdict is "wrong" from there on. (The replacement character
    stands for a part of a character that the next token may complete, so it is not counted.)
    """
    return sum(character not in _NEUTRAL for character in text) >= 2
