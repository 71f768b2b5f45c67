"""Rows in the original columns of every training set, and what must become of them."""

from typing import Any

HEADER = (
    "Below is an instruction that describes a task{}. Write a response that appropriately "
    "completes the request."
)
PAIRED = ", paired with an input that provides further context"
CHOICES = {"text": ["a rock", " a plant ", "a star"], "label": ["A", "B", "C"]}

# A set -> a row, the prompt that the model sees (no loss on it), and what it is to answer, both
# written out by hand from the authors' code, without BOS and EOS.
ROWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "metamathqa": (
        {"type": "x", "query": " What is 1+1?\n", "original_question": "y", "response": "\n2. "},
        "[INST][/INST] Question: What is 1+1?\n",
        "Answer: 2.\n",
    ),
    "magicoder": (
        {"instruction": "Write it. ", "response": " def f():\n    pass\n"},
        "[INST]\nQuestion: Write it.\nAnswer: [/INST]",
        "def f():\n    pass",
    ),
    "alpaca_gpt4": (
        {"instruction": "Sort.", "input": "b a\n", "output": " a b ", "text": "unread"},
        f"{HEADER.format(PAIRED)}\n\n### Instruction:\nSort.\n\n### Input:\nb a\n\n### Response:\n",
        "a b",
    ),
    "arc_c": (
        {"id": "1", "question": " What grows? ", "choices": CHOICES, "answerKey": "B"},
        "",
        "Question: What grows?\nAnswer: a plant",
    ),
    "arc_e": (
        {
            "id": "2",
            "question": "What shines?",
            "choices": {"text": ["a star", "a rock"], "label": ["1", "2"]},
            "answerKey": "1",
        },
        "",
        "Question: What shines?\nAnswer: a star",
    ),
    "hellaswag": (
        {
            "ind": 1,
            "ctx": "She opens the door. she ",
            "endings": ["flies.", " goes in.", "is a door.", "eats it."],
            "label": "1",
        },
        "She opens the door. she ",
        "goes in.",
    ),
    "winogrande": (
        {
            "sentence": "The trophy did not fit the case, since the _ was too _ big.",
            "option1": "trophy",
            "option2": "case",
            "answer": "1",
        },
        "The trophy did not fit the case, since the trophy",
        " was too _ big.",
    ),
    "piqa": (
        {"goal": "To open it,", "sol1": "push.", "sol2": "pull.", "label": 1},
        "",
        "Question: To open it,\nAnswer: pull.",
    ),
    "obqa": (
        {
            "id": "3",
            "question_stem": "The sun is",
            "choices": CHOICES,
            "answerKey": "C",
            "fact1": "the sun is a star",
        },
        "Given that: the sun is a star\nQuestion: The sun is?\nAnswer: ",
        "a star",
    ),
    "siqa": (
        {
            "context": "Kim cooked.",
            "question": "Why?",
            "answerA": "to eat",
            "answerB": "to sleep",
            "answerC": "to swim",
            "label": "1",
        },
        "",
        "Q: Kim cooked. Why?\nA: to eat",
    ),
    "boolq": (
        {"question": "is it a star", "answer": False, "passage": " It is a rock. "},
        "",
        "It is a rock.\nQuestion: is it a star?\nAnswer:\nno\n",
    ),
}
ROWS["gsm8k"] = (
    {"question": "One and one?", "answer": "It is 1 + 1.\n#### 2"},
    "Question: One and one?\nAnswer:",
    " It is 1 + 1.\n#### 2",
)
ROWS |= dict.fromkeys(("metamathqa_30k", "metamathqa_70k"), ROWS["metamathqa"])

# A set, what of its row is changed, and what is then said of the row.
UNUSABLE = [
    ("metamathqa", {"query": " "}, "has no text in query"),
    ("metamathqa", {"query": "a \ud83d b"}, "has half a character in its instruction"),
    ("metamathqa", {"response": None}, "has nothing in response"),
    ("magicoder", {"response": 7}, "has no text in response"),
    ("alpaca_gpt4", {"output": ""}, "has no text in output"),
    ("arc_c", {"answerKey": "D"}, "has no right answer in answerKey"),
    ("arc_e", {"choices": {"text": ["a"], "label": []}}, "has no right answer in answerKey"),
    ("arc_e", {"choices": {"text": [""], "label": ["1"]}}, "has an empty right answer"),
    ("hellaswag", {"label": ""}, "has no right answer in label"),
    ("hellaswag", {"label": "4"}, "has no right answer in label"),
    ("hellaswag", {"endings": ["", " ", "", ""]}, "has an empty right answer"),
    ("winogrande", {"sentence": "No blank."}, "has no blank (_) in its sentence"),
    ("winogrande", {"answer": "0"}, "has no right answer in answer"),
    ("winogrande", {"sentence": "It is _"}, "has an empty right answer"),
    ("piqa", {"label": -1}, "has no right answer in label"),
    ("obqa", {"fact1": ""}, "has no text in fact1"),
    ("siqa", {"label": "4"}, "has no right answer in label"),
    ("boolq", {"answer": "no"}, "has an answer that is neither true nor false"),
    ("boolq", {"answer": None}, "has nothing in answer"),
]
