"""Scores worked out by hand, against the stock tasks run by the real harness."""

import ast
import hashlib
import json
from fractions import Fraction
from functools import partial
from itertools import combinations
from statistics import mean, stdev

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.utils import postprocess_generated_text
from lm_eval.tasks._yaml_loader import load_yaml

from losia_cli.errors import UserError
from losia_cli.evaluation import harness, letter, results
from losia_cli.evaluation.batches import Limit
from losia_cli.evaluation.documents import Documents
from losia_cli.evaluation.model import ResumableLM
from losia_cli.evaluation.passk import pass_at_k
from losia_cli.evaluation.store import Store
from losia_cli.evaluation.suites import SUITES
from tests.evaluation.conftest import SHARED, Unwatched, make
from tests.evaluation.scripted import (
    SUBJECTS,
    Scripted,
    one_of_each,
    problem,
    question,
    sums,
    write,
)

harness.quieten()


def run(suite, data, answer, judge=None):
    """The suite's headline, and the model that was asked."""
    lm = Scripted(answer)
    built = harness.build(SUITES[suite], Documents(data), judge)
    raw = harness.run(lm, SUITES[suite], built, limit=None, chat=False)
    return results.headline(SUITES[suite], raw), raw, lm


def scores(raw, chosen, metric="exact_match"):
    """(task, document) -> what one filter's response was worth."""
    return {
        (task, line["doc_id"]): line[metric]
        for task, lines in raw["samples"].items()
        for line in lines
        if line["filter"] == chosen
    }


def matches(raw, task, wanted):
    """Assert what each response was worth, by each filter, with the response if it was not."""
    for chosen, expected in wanted.items():
        found = scores(raw, chosen)
        for number, (response, worth) in enumerate(expected):
            assert found[task, number] == worth, (chosen, response)


# ------------------------------------------------------------------------------- numbers

# Response, the end of the document's answer, and whether it is right: for the last number, after
# `#### `, and after `The answer is `.
NUMBERS = [
    ("1200 + 34 = 1234.\n#### 1234", "1234", 1, 1, 0),
    ("#### 1,234", "1234", 1, 1, 0),
    ("#### 1234", "1,234", 1, 1, 0),
    ("So 1,2,3,4 it is", "1234", 1, 0, 0),
    ("#### $1234", "1234", 1, 0, 0),
    ("#### 1234$", "1234", 1, 1, 0),
    ("#### 1234.", "1234", 1, 1, 0),
    ("####1234", "1234", 1, 0, 0),
    ("#### 1234 dollars", "1234", 1, 1, 0),
    ("#### 1234\nThis took 12 months.", "1234", 0, 1, 0),
    ("First #### 5, then #### 1234", "1234", 1, 0, 0),
    ("#### -1234", "1234", 0, 0, 0),
    ("It is 12 - 15 = -3", "-3", 1, 0, 0),
    ("#### -3", "-3", 1, 1, 0),
    ("The answer is: 7", "7", 1, 0, 0),
    ("The answer is: 7.", "7", 1, 0, 0),
    ("The answer is: 1234", "1234", 1, 0, 0),
    ("The answer is 7.", "7", 1, 0, 1),
    ("The answer is 7", "7", 1, 0, 0),
    ("The answer is 7!", "7", 1, 0, 1),
    ("The answer is 1,234.", "1234", 1, 0, 1),
    ("The answer is 1234", "1234", 1, 0, 0),
    ("The answer is $7.", "7", 1, 0, 0),
    ("the answer is 7.", "7", 1, 0, 0),
    ("The answer is 5. No, the answer is 7.", "7", 1, 0, 0),
    ("The answer is 7. It was 5 before", "7", 0, 0, 1),
    ("The answer is: 7. Well...", "7", 0, 0, 0),
    ("It is $1,234, of course", "1234", 1, 0, 0),
    ("It is $1,234.00", "1234", 0, 0, 0),
    ("1 234", "1234", 0, 0, 0),
    ("1234.0", "1234", 0, 0, 0),
    ("12345", "1234", 0, 0, 0),
    ("no number at all", "1234", 0, 0, 0),
    ("seven", "7", 0, 0, 0),
    ("", "7", 0, 0, 0),
    ("\n\n7\n", "7", 1, 0, 0),
    ("7 apples and 2 pears", "7", 0, 0, 0),
    ("$7", "7", 1, 0, 0),
    ("\\boxed{7}", "7", 1, 0, 0),
    ("**7**", "7", 1, 0, 0),
]
KINDS = {"gsm8k-5shot": 3, "gsm8k-train-prompt": 3, "gsm8k-cot": 4}  # which column is strict


@pytest.mark.parametrize("suite", KINDS)
def test_numbers(tmp_path, suite):
    rows = [
        {"question": f"Question {n}?", "answer": f"Some steps, 1 or 2.\n#### {row[1]}"}
        for n, row in enumerate(NUMBERS)
    ]
    write(tmp_path, "gsm8k/test", rows)
    write(tmp_path, "gsm8k/train", sums(8))
    said = {row["question"]: number[0] for row, number in zip(rows, NUMBERS, strict=True)}
    headline, raw, _ = run(suite, tmp_path, lambda document, _: said[document["question"]])
    wanted = {
        name: [(row[0], row[column]) for row in NUMBERS]
        for name, column in (("flexible-extract", 2), ("strict-match", KINDS[suite]))
    }
    matches(raw, SUITES[suite].task, wanted)
    strict = headline["also"]["exact_match,strict-match"]
    for found, name in ((headline, "flexible-extract"), (strict, "strict-match")):
        worths = [worth for _, worth in wanted[name]]
        assert found["score"] == pytest.approx(mean(worths))
        assert found["stderr"] == pytest.approx(stdev(worths) / len(worths) ** 0.5)
    assert headline["shots"] == SUITES[suite].shots
    assert (headline["documents"], headline["of"], headline["tasks"]) == (40, 40, 1)


# ------------------------------------------------------------------------------- letters

LETTERS = [  # the right one is B
    ("B", 1),
    ("b", 1),
    (" B", 1),
    ("\t B \t", 1),
    ("B.", 1),
    ("B)", 1),
    ("(B)", 1),
    ("**B**", 1),
    ("$B$", 1),
    ("B\nBecause it is", 1),
    ("B .", 0),  # the blank in between stays
    ("A", 0),
    ("", 0),
    ("\nB", 0),
    ("\n", 0),
    ("B. Because it is", 0),
    ("The answer is: B", 0),
    ("Answer: B", 0),
    ("BB", 0),
    ("A B", 0),
    ("1", 0),
    ("\u0392", 0),  # a Greek capital that looks like it
    ("...", 0),
]


@pytest.fixture
def mmlu(tmp_path):
    """A subject for each of the four domains, of different sizes; B is always right."""
    for size, subject in zip((23, 5, 7, 11), SUBJECTS.values(), strict=True):
        write(tmp_path, f"mmlu/{subject}/dev", [question(n, subject, 0) for n in range(90, 95)])
        write(tmp_path, f"mmlu/{subject}/test", [question(n, subject, 1) for n in range(size)])
    return tmp_path


def test_letters(mmlu):
    def answer(document, _):
        number = int(document["question"].split()[-1].removesuffix("th?"))
        right = {"astronomy": LETTERS[number][0], "sociology": "B", "philosophy": "A"}
        return right.get(document["subject"], "BA"[number % 2])

    headline, raw, lm = run("mmlu-gen", mmlu, answer)
    matches(raw, "mmlu_astronomy_generative", {"get_response": LETTERS})
    right = sum(worth for _, worth in LETTERS)
    domains = headline["domains"]
    assert {name: part["score"] for name, part in domains.items()} == pytest.approx({
        "stem": right / 23, "social sciences": 1, "humanities": 0, "other": 6 / 11
    })  # fmt: skip
    # one subject in each: the standard error of its mean
    other = 6 / 11
    assert domains["other"]["stderr"] == pytest.approx((other * (1 - other) / 10) ** 0.5)
    assert domains["humanities"]["stderr"] == 0
    assert headline["score"] == pytest.approx((right + 5 + 0 + 6) / (23 + 5 + 7 + 11))
    assert headline["shots"] == 5
    assert (headline["documents"], headline["tasks"]) == (46, 4)
    assert all(prompt.count("Answer: A\n") == 5 for prompt in lm.prompts)


@pytest.fixture(scope="module")
def verdict(tmp_path_factory):
    """What the stock filter and metric make of a response, for each right letter."""
    data = tmp_path_factory.mktemp("mmlu")
    for subject in SUBJECTS.values():
        rows = [question(n, subject, n) for n in range(4)]
        write(data, f"mmlu/{subject}/dev", rows)
        write(data, f"mmlu/{subject}/test", rows)
    task = harness.leaves(harness.build(SUITES["mmlu-gen"], Documents(data), None))[0]
    (chosen,) = task._filters
    documents = list(task.test_docs())

    def worth(text):
        responses = [[text]]
        for step in chosen.filters:
            responses = list(step().apply(responses, documents))
        return [task.process_results(d, responses)["exact_match"] for d in documents]

    return worth


# Letters, and whatever could turn a text into one letter or keep it from being one.
TEXTS = st.text(
    st.sampled_from("AbB\u0130 \t\r\x0b\x1c\x85\xa0\u2028\u3000.,*()<>/|s\0\ufffd\u0301\n")
)
ANY = st.one_of(TEXTS, st.text())


@settings(max_examples=600)
@given(ANY, ANY)
def test_a_settled_letter_never_changes_its_verdict(verdict, text, more):
    if letter.settled(text):
        assert verdict(text) == verdict(text + more)


@settings(max_examples=300)
@given(TEXTS)
def test_what_may_still_become_right_is_not_settled(verdict, text):
    if any(verdict(text)) and "\n" not in text:
        assert not letter.settled(text)


@settings(max_examples=600)
@given(st.data())
def test_a_response_that_leaves_early_keeps_its_verdict(verdict, rules, tokenizer, data):
    """Of any tokens, with special ones and stop texts in parts: what is scored in the end."""
    short, whole = rules
    encode = tokenizer.encode
    pieces = [encode(c) for c in ("A", "b", "\u00e9", ".", " ", "<", "/s", "\n")]
    pieces += [encode("A") + encode("\u3000"), encode("\u3000")[:2]]  # a blank of three tokens
    pieces += [encode("</s") + encode(">")]  # the text, not the token
    piece = st.one_of(st.sampled_from(pieces), st.integers(0, 299).map(lambda token: [token]))
    drawn = data.draw(st.lists(piece, min_size=1, max_size=8))
    tokens = [token for piece in drawn for token in piece]

    def response(rule):
        said = []
        for token in tokens:
            said.append(token)
            if rule.ended(said, tokenizer.decode):
                break
        text = tokenizer.decode(said, skip_special_tokens=True)
        return len(said), postprocess_generated_text(text, list(rule.stop), None)

    (early, left), (late, stayed) = response(short), response(whole)
    assert early <= late
    assert verdict(left) == verdict(stayed)


@pytest.fixture(scope="module")
def rules(tokenizer, tmp_path_factory):
    """When responses to MMLU end: as soon as they are settled, and when they stop."""
    told = {"until": ["</s>", "\n"], "max_gen_toks": 256, "do_sample": False}
    asked = Instance("generate_until", {}, ("One", told), 0, metadata=("mmlu", 0, 1))
    return [
        ResumableLM(
            make(),
            tokenizer,
            identity={},
            bos=True,
            limit=Limit(4096, 16384),
            store=Store(tmp_path_factory.mktemp("store")),
            seed=1,
            letters=letters,
            watcher=Unwatched(),
        )._rules(asked)
        for letters in ({"mmlu"}, set())
    ]


@pytest.mark.parametrize("text", ["The", "A.Be", "Answer: B", "(A) is", "\u00e9\u00e9"])
def test_most_responses_are_soon_settled(text):
    assert letter.settled(text)


# ------------------------------------------------------------------------------- pass@k


def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample():
    for samples in range(1, 11):
        for right in range(samples + 1):
            outcomes = [number < right for number in range(samples)]
            for k in range(1, samples + 1):
                subsets = list(combinations(outcomes, k))
                share = Fraction(sum(map(any, subsets)), len(subsets))
                assert pass_at_k(samples, right, k) == pytest.approx(float(share), abs=1e-12)


@pytest.mark.parametrize(("samples", "k"), [(9, 10), (1, 10), (0, 1), (5, 0)])
def test_a_k_without_so_many_samples_is_refused(samples, k):
    with pytest.raises(UserError, match=rf"pass@{k} needs"):
        pass_at_k(samples, 0, k)


@pytest.fixture
def mbpp(tmp_path):
    write(tmp_path, "mbpp/prompt", [problem(number) for number in range(1, 11)])
    write(tmp_path, "mbpp/test", [problem(number) for number in range(11, 16)])
    return tmp_path


RIGHT = {11: 0, 12: 10, 13: 1, 14: 3, 15: 0}  # of ten samples


def judge(responses, documents):
    """Takes a response at its word, to see what is made of verdicts."""
    return [["passed" if text == "right" else "error" for text in some] for some in responses]


def test_pass_at_1_and_10_with_their_standard_errors(mbpp):
    def answer(document, sample):
        return "right" if sample >= 10 - RIGHT[document["task_id"]] else "wrong"

    headline, raw, lm = run("mbpp", mbpp, answer, judge)
    assert len(lm.prompts) == 50
    assert [line["resps"][0].count("right") for line in raw["samples"]["mbpp"]] == [0, 10, 1, 3, 0]
    first, tenth = [0, 1, 0.1, 0.3, 0], [0, 1, 1, 1, 0]
    for found, worths in ((headline, first), (headline["also"]["pass@10,judged"], tenth)):
        assert found["score"] == pytest.approx(mean(worths))
        assert found["stderr"] == pytest.approx(stdev(worths) / 5**0.5)
    assert headline["metric"] == "pass@1,judged"


def test_one_greedy_sample_gives_pass_at_1_alone(mbpp):
    def answer(document, sample):
        return "right" if document["task_id"] == 13 else "wrong"

    headline, raw, lm = run("mbpp-greedy", mbpp, answer, judge)
    assert (headline["score"], headline["also"], len(lm.prompts)) == (pytest.approx(0.2), {}, 5)
    assert "pass@10,judged" not in raw["results"]["mbpp"]


# ------------------------------------------------------------------------------- MBPP's prompt


def stock_examples():
    """The examples in the stock task's code, read without running it."""
    tree = ast.parse((harness.TASKS / "mbpp/utils.py").read_text())
    (function,) = (
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "list_fewshot_samples"
    )
    return ast.literal_eval(function.body[0].value)


def stock_prompt(document):
    """The stock prompt of a document, rendered by hand from the YAML."""
    stock = load_yaml(harness.TASKS / "mbpp/mbpp.yaml", resolve_func=False)
    text, target = (
        jinja2.Template(stock[key], keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
        for key in ("doc_to_text", "doc_to_target")
    )
    shots = stock_examples()
    assert len(shots) == stock["num_fewshot"] == 3
    shown = [text.render(shot) + stock["target_delimiter"] + target.render(shot) for shot in shots]
    return "\n\n".join([*shown, text.render(document)])


def with_stock_examples(data):
    by_number = {shot["task_id"]: {**problem(0), **shot} for shot in stock_examples()}
    rows = [by_number.get(number, problem(number)) for number in (4, 9, 2, 1, 3)]
    write(data, "mbpp/prompt", [{k: v for k, v in r.items() if k != "is_fewshot"} for r in rows])
    write(data, "mbpp/test", [problem(number) for number in range(11, 16)])
    return data


def asked(suite, data):
    """Each document that a suite asks of, with the prompt that it asks."""
    built = harness.build(SUITES[suite], Documents(data), judge)
    lm = Scripted(lambda document, _: "wrong")
    raw = harness.run(lm, SUITES[suite], built, limit=20, chat=False)
    return [(line["doc"], line["arguments"][0][0]) for line in raw["samples"]["mbpp"]], lm


@pytest.mark.parametrize("suite", ["mbpp", "mbpp-greedy"])
def test_our_mbpp_prompt_is_the_stock_one(tmp_path, suite):
    found, lm = asked(suite, with_stock_examples(tmp_path))
    assert len(found) == 5
    for document, prompt in found:
        assert prompt == stock_prompt(document)
    assert set(lm.prompts) == {prompt for _, prompt in found}


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data slices in {SHARED}")
def test_our_mbpp_prompt_on_real_documents_is_the_stock_one():
    found, _ = asked("mbpp-greedy", SHARED)
    assert len(found) == 20
    for document, prompt in found:
        assert prompt == stock_prompt(document)


def test_a_prompt_split_without_the_examples_is_refused(mbpp):
    write(mbpp, "mbpp/prompt", [problem(number) for number in (2, 4, 5)])
    with pytest.raises(UserError, match="task_id 3"):
        run("mbpp-greedy", mbpp, lambda document, _: "", judge)


# ------------------------------------------------------------------------------- stock tasks

# Each suite's task as the pinned harness ships it; of a group, all its tasks.
CONFIGURATIONS = {
    "gsm8k-5shot": "b14f34bc6eae3c6f",
    "gsm8k-cot": "03d38e81470366ff",
    "gsm8k-train-prompt": "b14f34bc6eae3c6f",
    "mbpp": "8f2a41052f4d82cb",
    "mbpp-greedy": "890a909120e5f666",
    "mmlu-ppl": "1b57b7519d9d1ff0",
    "mmlu-gen": "9c81450dda335848",
    "mmlu-continuation": "41d3d29cfb066fc7",
    "arc-c": "bcdec763fda58886",
    "arc-e": "ba9446d8fc7c758c",
    "hellaswag": "9cb434e41a2aff28",
    "winogrande": "38c4531b2c51f8b4",
    "piqa": "976bd9288ac5d041",
    "obqa": "74df247da96d3c53",
    "siqa": "7c6b0b1f17c2b8c3",
    "boolq": "7b867afda0905aca",
}
# The code that configurations name, which their hashes do not see.
CODE = {
    "hellaswag/utils.py": "07d23b60b28f2a4f",
    "mbpp/utils.py": "eecfcc264a63801d",
    "winogrande/preprocess_winogrande.py": "e55327629264a98f",
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Some rows of every dataset, all of MMLU's subjects included."""
    stock = (harness.TASKS / "mmlu/default").glob("mmlu_*.yaml")
    subjects = [load_yaml(path)["dataset_name"] for path in stock]
    assert len(subjects) == 57
    return one_of_each(tmp_path_factory.mktemp("every dataset"), subjects)


def digest(content):
    return hashlib.sha256(content).hexdigest()[:16]


@pytest.mark.parametrize("suite", SUITES)
def test_no_stock_task_has_changed(everything, suite):
    built = harness.build(SUITES[suite], Documents(everything), partial(judge))
    found = {task.task_name: harness.config_hash(task) for task in harness.leaves(built)}
    if suite.startswith("mmlu"):
        assert len(found) == 57
        found = {SUITES[suite].task: digest(json.dumps(found, sort_keys=True).encode())}
    assert found == {SUITES[suite].task: CONFIGURATIONS[suite]}


def test_no_code_of_a_stock_task_has_changed():
    folders = {suite.folder for suite in SUITES.values()}
    files = [path for folder in folders for path in (harness.TASKS / folder).glob("*.py")]
    found = {str(path.relative_to(harness.TASKS)): digest(path.read_bytes()) for path in files}
    assert found == CODE


def test_a_change_to_a_task_changes_its_hash(everything):
    task = harness.build(SUITES["gsm8k-5shot"], Documents(everything), None)
    before = harness.config_hash(task)
    assert harness.config_hash(task) == before
    task.set_config(key="doc_to_text", value="Q: {{question}}\nA:")
    assert harness.config_hash(task) != before


def test_another_version_of_the_harness_is_refused(monkeypatch):
    harness.expect_pinned()
    monkeypatch.setattr(harness, "version", lambda _: "0.4.99")
    with pytest.raises(UserError, match=r"0\.4\.99.*pip install lm-eval==0\.4\.13"):
        harness.expect_pinned()
