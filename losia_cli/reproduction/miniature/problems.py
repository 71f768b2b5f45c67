"""The little that the miniature's models can learn: sums, one-line programs, what things are for.

Training rows and evaluation documents are drawn from these, in the columns of the sets whose part
they play.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Drawn = TypeVar("Drawn")

# A kind of thing -> what one does with it, and the things.
KINDS = {
    "fruit": ("eat", ("pear", "plum", "fig", "peach", "lemon", "melon", "banana", "cherry")),
    "garment": ("wear", ("coat", "hat", "scarf", "shirt", "sock", "glove", "jacket", "belt")),
    "tool": ("work with", ("hammer", "saw", "spade", "rake", "drill", "file", "brush", "wrench")),
    "vehicle": ("travel in", ("car", "bus", "train", "boat", "van", "ferry", "taxi", "plane")),
    "toy": ("play with", ("doll", "ball", "kite", "puzzle", "top", "marble", "robot", "teddy")),
    "text": ("read", ("book", "letter", "poem", "novel", "paper", "story", "diary", "note")),
}
KIND_OF = {thing: kind for kind, (_, things) in KINDS.items() for thing in things}

_NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Henry", "Ida", "Jonas")
_GOODS = ("pens", "cups", "shells", "cards")
_STEPS: dict[str, tuple[str, Callable[[int, int], int]]] = {
    "add {}": ("{} + {}", lambda x, k: x + k),
    "subtract {}": ("{} - {}", lambda x, k: x - k),
    "multiply by {}": ("{} * {}", lambda x, k: x * k),
}


@dataclass(frozen=True)
class Sum:
    """One-digit numbers of goods, added."""

    name: str
    goods: str
    first: int
    more: int

    @property
    def total(self) -> int:
        """What they make together."""
        return self.first + self.more

    @property
    def question(self) -> str:
        """The sum in words."""
        return (
            f"{self.name} has {self.first} {self.goods} and finds {self.more} more."
            f" How many {self.goods} does {self.name} have?"
        )

    def steps(self, marks: str = "") -> str:
        """The worked answer; `marks` stands before the result."""
        sum_ = f"{self.first} + {self.more} = {marks}{self.total}"
        return f"{self.name} has {sum_} {self.goods}.\n#### {self.total}"


@dataclass(frozen=True)
class Program:
    """A function of two steps, each an operation with a constant."""

    steps: tuple[tuple[str, int], tuple[str, int]]

    @property
    def text(self) -> str:
        """What is to be written."""
        first, second = (operation.format(number) for operation, number in self.steps)
        return f"Write a function change that takes a number, to {first} and then {second}."

    @property
    def code(self) -> str:
        """The program."""
        expression = "x"
        for operation, number in self.steps:
            inner = expression if expression == "x" else f"({expression})"
            expression = _STEPS[operation][0].format(inner, number)
        return f"def change(x):\n    return {expression}"

    @property
    def tests(self) -> list[str]:
        """What it must give for three numbers."""
        return [f"assert change({number}) == {self._result(number)}" for number in (1, 4, 7)]

    def _result(self, x: int) -> int:
        for operation, number in self.steps:
            x = _STEPS[operation][1](x, number)
        return x


@dataclass(frozen=True)
class Choice:
    """Someone looks for a thing of a kind, and `options[place]` alone is one."""

    name: str
    kind: str
    options: tuple[str, ...]
    place: int

    @property
    def use(self) -> str:
        """What one does with the kind."""
        return KINDS[self.kind][0]

    @property
    def right(self) -> str:
        """The thing that is looked for."""
        return self.options[self.place]


def draw_sum(draw: random.Random) -> Sum:
    """A sum of two numbers from 1 to 9."""
    name, goods = draw.choice(_NAMES[:4]), draw.choice(_GOODS)
    return Sum(name, goods, draw.randint(1, 9), draw.randint(1, 9))


def draw_program(draw: random.Random) -> Program:
    """A program with constants from 2 to 9."""
    first, second = ((draw.choice(list(_STEPS)), draw.randint(2, 9)) for _ in range(2))
    return Program((first, second))


def draw_choice(draw: random.Random, options: int) -> Choice:
    """A choice among so many things."""
    kind = draw.choice(list(KINDS))
    others = [thing for thing, other in KIND_OF.items() if other != kind]
    place = draw.randrange(options)
    things = draw.sample(others, options)
    things[place] = draw.choice(KINDS[kind][1])
    return Choice(draw.choice(_NAMES), kind, tuple(things), place)


def different(one: Callable[[random.Random], Drawn], count: int, seed: str) -> list[Drawn]:
    """`count` different problems; the seed decides which."""
    draw, found = random.Random(seed), dict[Drawn, None]()
    while len(found) < count:
        found[one(draw)] = None
    return list(found)
