"""The problems as rows of the sets that the paper trains and scores on, in their own columns."""

from typing import Any

from losia_cli.reproduction.miniature.problems import KIND_OF, Choice, Program, Sum

Row = dict[str, Any]


def metamath(problem: Sum, number: int) -> Row:
    """MetaMathQA."""
    return {
        "type": "GSM_AnsAug",
        "query": problem.question,
        "original_question": problem.question,
        "response": f"{problem.steps()}\nThe answer is: {problem.total}",
    }


def gsm8k(problem: Sum, number: int) -> Row:
    """GSM8K, each result with its calculator's marks."""
    marks = f"<<{problem.first}+{problem.more}={problem.total}>>"
    return {"question": problem.question, "answer": problem.steps(marks)}


def magicoder(problem: Program, number: int) -> Row:
    """Magicoder-Evol-Instruct."""
    asked = "\n".join([f"{problem.text} Your code should pass these tests:", "", *problem.tests])
    return {"instruction": asked, "response": problem.code}


def mbpp(problem: Program, number: int) -> Row:
    """MBPP."""
    return {
        "task_id": number,
        "text": problem.text,
        "code": problem.code,
        "test_list": problem.tests,
        "test_setup_code": "",
        "challenge_test_list": [],
    }


def alpaca(problem: Choice, number: int) -> Row:
    """Alpaca-GPT4: a question with lettered options, and every other time one without."""
    if number % 2:
        answer = f"{problem.name} can {problem.use} the {problem.right}."
        return {"instruction": _what(problem), "input": _listed(problem), "output": answer}
    lettered = (f"{letter}. {thing}" for letter, thing in zip("ABCD", problem.options, strict=True))
    asked = "\n".join([*lettered, "Answer:"])
    return {"instruction": _what(problem), "input": asked, "output": "ABCD"[problem.place]}


def mmlu(problem: Choice, number: int) -> Row:
    """A subject of MMLU."""
    options = list(problem.options)
    return {"question": _what(problem), "choices": options, "answer": problem.place}


def arc_easy(problem: Choice, number: int) -> Row:
    """ARC-E."""
    return {"id": f"miniature-{number}", "question": _what(problem), **_lettered(problem)}


def arc_challenge(problem: Choice, number: int) -> Row:
    """ARC-C."""
    question = f"{problem.name} looks for a {problem.kind}. Which of these is one?"
    return {"id": f"miniature-{number}", "question": question, **_lettered(problem)}


def openbookqa(problem: Choice, number: int) -> Row:
    """OpenBookQA with the fact that a question is about."""
    return {
        "id": f"miniature-{number}",
        "question_stem": f"{problem.name} wants to {problem.use} something and takes the",
        **_lettered(problem),
        "fact1": f"a {problem.kind} is something to {problem.use}",
    }


def hellaswag(problem: Choice, number: int) -> Row:
    """HellaSwag."""
    before, then = f"{problem.name} wants to {problem.use} something.", "Soon"
    return {
        "ind": number,
        "activity_label": f"Looking for a {problem.kind}",
        "ctx_a": before,
        "ctx_b": then,
        "ctx": f"{before} {then}",
        "endings": [f"{problem.name} takes the {thing}." for thing in problem.options],
        "source_id": f"miniature~{number}",
        "split": "train",
        "split_type": "indomain",
        "label": str(problem.place),
    }


def winogrande(problem: Choice, number: int) -> Row:
    """Winogrande."""
    one, other = problem.options
    sentence = f"{problem.name} has a {one} and a {other}. The _ is something to {problem.use}."
    return {
        "sentence": sentence,
        "option1": one,
        "option2": other,
        "answer": str(problem.place + 1),
    }


def piqa(problem: Choice, number: int) -> Row:
    """PIQA."""
    one, other = (f"{problem.name} takes the {thing}." for thing in problem.options)
    goal = f"To {problem.use} something,"
    return {"goal": goal, "sol1": one, "sol2": other, "label": problem.place}


def siqa(problem: Choice, number: int) -> Row:
    """SIQA."""
    answers = {
        f"answer{letter}": f"the {o}" for letter, o in zip("ABC", problem.options, strict=True)
    }
    return {
        "context": f"{problem.name} wanted to {problem.use} something.",
        "question": f"What did {problem.name} take?",
        **answers,
        "label": str(problem.place + 1),
    }


def boolq(problem: Choice, number: int) -> Row:
    """BoolQ as its authors publish it."""
    return {**_asked(problem), "answer": problem.place == 0}


def super_glue_boolq(problem: Choice, number: int) -> Row:
    """BoolQ as SuperGLUE has it."""
    return {**_asked(problem), "idx": number, "label": int(problem.place == 0)}


def _asked(problem: Choice) -> Row:
    """Whether the first thing is of the kind, which it is where its place is the first."""
    one, other = problem.options
    kinds = f"A {one} is a {KIND_OF[one]} and a {other} is a {KIND_OF[other]}."
    passage = f"{problem.name} has a {one} and a {other}. {kinds}"
    return {"question": f"is a {one} a {problem.kind}", "passage": passage}


def _what(problem: Choice) -> str:
    return f"What can {problem.name} {problem.use}?"


def _listed(problem: Choice) -> str:
    return ", ".join(f"a {thing}" for thing in problem.options)


def _lettered(problem: Choice) -> Row:
    letters = list("ABCD")
    choices = {"text": list(problem.options), "label": letters}
    return {"choices": choices, "answerKey": letters[problem.place]}
