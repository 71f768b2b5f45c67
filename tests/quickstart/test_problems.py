import json
import re
from operator import add, mul, sub, truediv

from hypothesis import given, settings
from hypothesis import strategies as st

from losia_cli.quickstart import problems
from losia_cli.quickstart.problems import KINDS, Problem, generate

SEEDS = st.integers(0, 2**32)
# A second reading of each question: the numbers in the order of the text -> the answer. A kind is
# told in two ways, which its first word tells apart.
SOLUTIONS = {
    "shop": lambda told, n: (
        n[0] * n[2] + n[1] * n[3] if told == "In" else n[0] * n[1] + n[2] * n[3]
    ),
    "change": lambda told, n: n[1] - n[0] * n[2] if "pays" in told else n[0] - n[1] * n[2],
    "share": lambda told, n: n[0] * n[1] // n[2],
    "ride": lambda told, n: n[0] - n[1] + n[2] + n[3],
    "compare": lambda told, n: n[2] * n[0] + n[1] if "owns" in told else n[0] * n[1] + n[2],
    "reading": lambda told, n: n[0] * n[1] + n[2],
}
OPERATIONS = {"+": add, "-": sub, "*": mul, "/": truediv}


def numbers(text: str) -> list[int]:
    return [int(found) for found in re.findall(r"\d+", text)]


def solve(problem: Problem) -> int:
    told = "In" if problem.question.startswith("In ") else problem.question
    return SOLUTIONS[problem.kind](told, numbers(problem.question))


@given(SEEDS, SEEDS)
@settings(max_examples=30)
def test_no_held_out_question_is_trained_on_whatever_the_seeds(one, other):
    train = generate("train", 120, one)
    heldout = generate("heldout", 60, other)
    assert not {p.question for p in train} & {p.question for p in heldout}
    # Nor in other words: the same kind with the same numbers, in whatever order.
    taught = {(p.kind, *sorted(numbers(p.question))) for p in train}
    assert not taught & {(p.kind, *sorted(numbers(p.question))) for p in heldout}


@given(SEEDS, st.sampled_from(["train", "heldout"]))
@settings(max_examples=30)
def test_every_worked_answer_is_right(seed, split):
    for problem in generate(split, 30, seed):
        *steps, last = problem.answer.splitlines()
        assert last == f"#### {problem.number}"
        assert problem.number == solve(problem)
        for step in steps:
            a, sign, b, result = re.search(r"(\d+) ([-+*/]) (\d+) = (\d+)", step).groups()
            assert OPERATIONS[sign](int(a), int(b)) == int(result)
        assert numbers(steps[-1])[-1] == problem.number


@given(SEEDS)
@settings(max_examples=20)
def test_the_seed_decides_the_problems(seed):
    assert generate("train", 40, seed) == generate("train", 40, seed)
    assert generate("train", 40, seed) != generate("train", 40, seed + 1)


def test_all_questions_differ_and_the_kinds_take_turns():
    drawn = generate("train", 960, 42)
    assert len({p.question for p in drawn}) == 960
    assert {kind: sum(p.kind == kind for p in drawn) for kind in KINDS} == dict.fromkeys(KINDS, 160)


@given(st.sampled_from(sorted(KINDS)), st.permutations([12, 3, 5, 7]))
def test_the_order_of_the_numbers_does_not_move_a_problem_to_the_other_split(kind, order):
    assert problems.split_of(kind, tuple(order)) == problems.split_of(kind, (3, 5, 7, 12))


def test_the_written_files_hold_the_problems(tmp_path):
    train, heldout = generate("train", 12, 1), generate("heldout", 6, 1)
    problems.write(tmp_path / "data", train, heldout)
    info = json.loads((tmp_path / "data" / "dataset_info.json").read_text())
    entry = info[problems.DATASET]
    rows = json.loads((tmp_path / "data" / entry["file_name"]).read_text())
    columns = entry["columns"]
    assert [(r[columns["prompt"]], r[columns["response"]]) for r in rows] == [
        (p.question, p.answer) for p in train
    ]
    lines = (tmp_path / "data" / problems.HELDOUT_FILE).read_text().splitlines()
    assert [(json.loads(x)["question"], json.loads(x)["number"]) for x in lines] == [
        (p.question, p.number) for p in heldout
    ]
