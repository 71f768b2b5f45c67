"""How many of a task's documents are asked: so many, or a share of them."""


def parse(text: str) -> tuple[float, bool]:
    """The number of documents, or the share and True.

    Raises:
        ValueError: it is neither a whole number nor a percentage.
    """
    if text.endswith("%"):
        return float(text.removesuffix("%")) / 100, True
    return int(text), False
