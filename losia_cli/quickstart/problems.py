"""The skill to be taught: worded problems of several steps, each with a worked answer.

A problem is one of six kinds (`KINDS`), told with drawn names, things and small whole numbers. Its
answer spells out every sum and ends in a line `#### N`. Whether a problem is for training or held
out depends on its kind and numbers alone, so that no held-out problem was ever trained on in other
words either.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "heldout"]

DATASET = "quickstart"
TRAIN_FILE = "train.json"
HELDOUT_FILE = "heldout.jsonl"

_HELDOUT_SHARE = 5  # one combination of numbers in this many is held out


@dataclass(frozen=True)
class Problem:
    """One problem: what is asked, the worked answer, and the number it ends in."""

    kind: str
    question: str
    answer: str
    number: int


@dataclass(frozen=True)
class _Draft:
    """What a kind draws: the numbers that decide the split, the text, the steps, the result."""

    numbers: tuple[int, ...]
    question: str
    steps: tuple[str, ...]
    result: int


_NAMES = (
    *("Anna", "Ben", "Carla", "David", "Emma", "Frank", "Grace", "Henry", "Iris", "Jack"),
    *("Kate", "Leo", "Maria", "Nick", "Olga", "Peter", "Rosa", "Sam", "Tina", "Victor"),
)
_GOODS = ("pens", "cups", "books", "hats", "toys", "lamps", "plates", "bags", "shirts", "cards")
_FRUITS = ("apples", "pears", "plums", "peaches", "lemons", "oranges", "cherries", "figs")
_BOXES = ("boxes", "baskets", "crates", "trays", "sacks", "bowls")
_PLACES = ("bus", "train", "ferry", "tram")
_KEPT = ("marbles", "stickers", "coins", "shells", "stamps", "beads")
_READ = ("pages", "letters", "poems", "stories")


def _shop(draw: random.Random) -> _Draft:
    """Two goods, each with a number and a price: what do they cost together?"""
    name, (one, two) = draw.choice(_NAMES), draw.sample(_GOODS, 2)
    a, b, c, d = (draw.randint(2, 9) for _ in range(4))
    question = draw.choice(
        (
            f"{name} buys {a} {one} for {b} dollars each and {c} {two} for {d} dollars each."
            f" How many dollars does {name} spend?",
            f"In a shop {one} cost {b} dollars each and {two} cost {d} dollars each."
            f" {name} takes {a} {one} and {c} {two}. How many dollars must {name} pay?",
        )
    )
    steps = (
        f"The {one} cost {a} * {b} = {a * b}.",
        f"The {two} cost {c} * {d} = {c * d}.",
        f"Together that is {a * b} + {c * d} = {a * b + c * d}.",
    )
    return _Draft((a, b, c, d), question, steps, a * b + c * d)


def _change(draw: random.Random) -> _Draft:
    """A round sum of money, then a number of goods at a price: what is left?"""
    name, thing = draw.choice(_NAMES), draw.choice(_GOODS)
    a, b, money = draw.randint(2, 6), draw.randint(2, 6), draw.choice((40, 50, 60))
    cost = a * b
    question = draw.choice(
        (
            f"{name} has {money} dollars and buys {a} {thing} for {b} dollars each."
            f" How many dollars are left?",
            f"{name} pays for {a} {thing} with {money} dollars. Each of the {thing} costs {b}"
            f" dollars. How many dollars does {name} get back?",
        )
    )
    steps = (
        f"The {thing} cost {a} * {b} = {cost}.",
        f"What is left is {money} - {cost} = {money - cost}.",
    )
    return _Draft((a, b, money), question, steps, money - cost)


def _share(draw: random.Random) -> _Draft:
    """Full boxes, shared equally: how many does each one get?"""
    name, fruit, box = draw.choice(_NAMES), draw.choice(_FRUITS), draw.choice(_BOXES)
    friends, each = draw.randint(2, 9), draw.randint(2, 9)
    total = friends * each
    boxes = draw.choice([n for n in range(2, 10) if total % n == 0 and 2 <= total // n <= 20])
    per_box = total // boxes
    question = draw.choice(
        (
            f"{name} has {boxes} {box} with {per_box} {fruit} in each and shares them equally"
            f" among {friends} friends. How many {fruit} does each friend get?",
            f"There are {boxes} {box} of {per_box} {fruit}. {friends} children share all the"
            f" {fruit} equally. How many {fruit} does each child get?",
        )
    )
    steps = (
        f"There are {boxes} * {per_box} = {total} {fruit}.",
        f"Each gets {total} / {friends} = {each}.",
    )
    return _Draft((boxes, per_box, friends), question, steps, each)


def _ride(draw: random.Random) -> _Draft:
    """People get off at one stop and on at two: how many are there now?"""
    place = draw.choice(_PLACES)
    start, off, on, more = (draw.randint(*span) for span in ((11, 19), (2, 9), (2, 9), (2, 9)))
    first, second, end = start - off, start - off + on, start - off + on + more
    question = draw.choice(
        (
            f"A {place} leaves with {start} people. At the first stop {off} people get off and {on}"
            f" get on. At the second stop {more} people get on."
            f" How many people are on the {place} now?",
            f"There are {start} people on a {place}. Then {off} leave, {on} come in, and {more}"
            f" more come in. How many people are on the {place} in the end?",
        )
    )
    steps = (
        f"First {start} - {off} = {first}.",
        f"Then {first} + {on} = {second}.",
        f"Then {second} + {more} = {end}.",
    )
    return _Draft((start, off, on, more), question, steps, end)


def _compare(draw: random.Random) -> _Draft:
    """Times as many and some more: how many have the three together?"""
    one, two, three = draw.sample(_NAMES, 3)
    thing = draw.choice(_KEPT)
    a, times, more = draw.randint(2, 9), draw.randint(2, 5), draw.randint(2, 9)
    b = a * times
    c = b + more
    question = draw.choice(
        (
            f"{one} has {a} {thing}. {two} has {times} times as many {thing} as {one}. {three} has"
            f" {more} more than {two}. How many {thing} does {three} have?",
            f"{two} owns {times} times as many {thing} as {one}, and {three} owns {more} more than"
            f" {two}. {one} owns {a} {thing}. How many {thing} does {three} own?",
        )
    )
    steps = (f"{two} has {a} * {times} = {b}.", f"{three} has {b} + {more} = {c}.")
    return _Draft((a, times, more), question, steps, c)


def _reading(draw: random.Random) -> _Draft:
    """So many a day, then some more: how many in all?"""
    name, thing = draw.choice(_NAMES), draw.choice(_READ)
    a, days, more = draw.randint(2, 9), draw.randint(2, 9), draw.randint(2, 9)
    read = a * days
    question = draw.choice(
        (
            f"{name} reads {a} {thing} a day for {days} days, and then {more} more."
            f" How many {thing} has {name} read?",
            f"For {days} days {name} reads {a} {thing} every day. On the day after that it is"
            f" {more}. How many {thing} is that in all?",
        )
    )
    steps = (
        f"In {days} days that is {a} * {days} = {read}.",
        f"In all {read} + {more} = {read + more}.",
    )
    return _Draft((a, days, more), question, steps, read + more)


KINDS: dict[str, Callable[[random.Random], _Draft]] = {
    "shop": _shop,
    "change": _change,
    "share": _share,
    "ride": _ride,
    "compare": _compare,
    "reading": _reading,
}


def generate(split: Split, count: int, seed: int) -> list[Problem]:
    """`count` different problems of one split, the kinds taking turns; the seed decides them."""
    draw = random.Random(f"{split} {seed}")
    problems: dict[str, Problem] = {}
    for kind in _in_turn(count):
        problem = _draw_one(kind, split, draw)
        while problem.question in problems:
            problem = _draw_one(kind, split, draw)
        problems[problem.question] = problem
    return list(problems.values())


def _in_turn(count: int) -> Iterator[str]:
    kinds = list(KINDS)
    return (kinds[i % len(kinds)] for i in range(count))


def _draw_one(kind: str, split: Split, draw: random.Random) -> Problem:
    draft = KINDS[kind](draw)
    while split_of(kind, draft.numbers) != split:
        draft = KINDS[kind](draw)
    answer = "\n".join((*draft.steps, f"#### {draft.result}"))
    return Problem(kind, draft.question, answer, draft.result)


def split_of(kind: str, numbers: tuple[int, ...]) -> Split:
    """The split of a kind's numbers, whatever the seed, their order and the words around them."""
    digest = hashlib.sha256(f"{kind} {sorted(numbers)}".encode()).digest()
    return "heldout" if digest[0] % _HELDOUT_SHARE == 0 else "train"


def write(folder: Path, train: list[Problem], heldout: list[Problem]) -> None:
    """Write a LLaMA-Factory dataset folder (`dataset_info.json`) and the held-out JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"prompt": "question", "response": "answer"}
    info = {DATASET: {"file_name": TRAIN_FILE, "columns": columns}}
    rows = [{"question": p.question, "answer": p.answer} for p in train]
    (folder / TRAIN_FILE).write_text(json.dumps(rows, indent=1))
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=1))
    lines = (json.dumps(asdict(p)) + "\n" for p in heldout)
    (folder / HELDOUT_FILE).write_text("".join(lines))
