"""Rows and documents: the sources' own columns, and right answers that are right."""

import json
import re

import pytest
from rich.console import Console

from losia_cli.data import manifest
from losia_cli.data.prepare import Request, prepare
from losia_cli.data.sources import SOURCES
from losia_cli.data.training_sets import SETS
from losia_cli.evaluation import harness
from losia_cli.evaluation.documents import Documents
from losia_cli.evaluation.judge import judge
from losia_cli.evaluation.sandbox import Program, unsandboxed
from losia_cli.evaluation.suites import SUITES, find
from losia_cli.reproduction.miniature import documents
from losia_cli.reproduction.miniature.problems import KINDS

COLUMNS = {
    "metamathqa": {"type", "query", "original_question", "response"},
    "metamathqa_30k": {"type", "query", "original_question", "response"},
    "metamathqa_70k": {"type", "query", "original_question", "response"},
    "magicoder": {"instruction", "response"},
    "alpaca_gpt4": {"instruction", "input", "output"},
    "arc_c": {"id", "question", "choices", "answerKey"},
    "arc_e": {"id", "question", "choices", "answerKey"},
    "obqa": {"id", "question_stem", "choices", "answerKey", "fact1"},
    "hellaswag": {
        *("ind", "activity_label", "ctx_a", "ctx_b", "ctx", "endings", "source_id", "split"),
        *("split_type", "label"),
    },
    "winogrande": {"sentence", "option1", "option2", "answer"},
    "piqa": {"goal", "sol1", "sol2", "label"},
    "siqa": {"context", "question", "answerA", "answerB", "answerC", "label"},
    "boolq": {"question", "passage", "answer"},
}
USES = {use: kind for kind, (use, _) in KINDS.items()}


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def asked(world, folder, split="validation"):
    found = read(world.documents / folder / f"{split}.jsonl")
    assert len(found) == documents.ASKED
    return found


def test_every_training_set_has_its_sources_columns(world):
    assert set(world.sources) == set(COLUMNS)
    for name, path in world.sources.items():
        rows = read(path)
        assert len(rows) >= 300
        assert all(set(row) == COLUMNS[name] for row in rows), name
        assert len({json.dumps(row, sort_keys=True) for row in rows}) == len(rows)


def test_every_training_set_can_be_prepared(world, tmp_path):
    for name, path in world.sources.items():
        prepare(Request(SETS[name], path), tmp_path, Console(quiet=True))
    records = manifest.read(tmp_path)
    assert set(records) == set(SETS) - {"gsm8k"}  # no table of the paper trains on it
    for name, record in records.items():
        assert record["rows"] == len(read(world.sources[name])), name
        assert not record["skipped"]


def test_the_larger_samples_hold_the_smaller_ones(world):
    few, some, many = (
        read(world.sources[name]) for name in ("metamathqa_30k", "metamathqa", "metamathqa_70k")
    )
    assert (len(few), len(some), len(many)) == (300, 500, 700)
    assert few == some[:300]
    assert some == many[:500]


def test_no_document_is_trained_on(world):
    def texts(rows, keys):
        return {tuple(json.dumps(row[key]) for key in keys) for row in rows}

    gsm8k = texts(asked(world, "gsm8k", "test"), ["question"])
    assert not gsm8k & texts(read(world.sources["metamathqa_70k"]), ["query"])
    programs = {row["text"] for row in asked(world, "mbpp", "test")}
    taught = [row["instruction"] for row in read(world.sources["magicoder"])]
    assert not any(text in instruction for text in programs for instruction in taught)
    for name, keys in {
        "hellaswag": ["ctx", "endings"],
        "winogrande": ["sentence", "option1"],
        "piqa": ["goal", "sol1", "sol2"],
    }.items():
        assert not texts(asked(world, name), keys) & texts(read(world.sources[name]), keys)


def test_sums_are_right(world):
    rows = [(row["question"], row["answer"]) for row in asked(world, "gsm8k", "test")]
    rows += [(row["query"], row["response"]) for row in read(world.sources["metamathqa_70k"])]
    for question, answer in rows:
        first, more = map(int, re.findall(r"\d+", question))
        assert re.search(r"#### (\d+)", answer).group(1) == str(first + more)
        said = re.search(r"The answer is: (\d+)$", answer)
        assert said is None or said.group(1) == str(first + more)


def test_programs_pass_their_tests(world):
    rows = asked(world, "mbpp", "test") + read(world.documents / "mbpp/prompt.jsonl")
    programs = [Program(row["code"], tuple(row["test_list"])) for row in rows]
    wrong = [Program("def change(x):\n    return 'x'", programs[0].tests)]
    verdicts = [verdict.value for verdict in judge(programs + wrong, unsandboxed())]
    assert verdicts == ["passed"] * len(rows) + ["wrong"]
    for row in read(world.sources["magicoder"]):
        tests = [line for line in row["instruction"].splitlines() if line.startswith("assert")]
        assert len(tests) == 3
        exec("\n".join([row["response"], *tests]), {})


def only(options, use):
    """The place of the only option that is for this use."""
    fitting = [i for i, text in enumerate(options) if text.split()[-1].strip(".") in things(use)]
    assert len(fitting) == 1
    return fitting[0]


def things(use):
    return KINDS[USES[use]][1]


def test_the_right_option_is_the_only_one_that_fits(world):
    for subject in documents.SUBJECTS:
        for row in asked(world, f"mmlu/{subject}", "test"):
            use = re.search(r"can \w+ (.+)\?", row["question"]).group(1)
            assert only(row["choices"], use) == row["answer"]
    for row in asked(world, "arc_easy", "test"):
        use = re.search(r"can \w+ (.+)\?", row["question"]).group(1)
        assert row["choices"]["label"][only(row["choices"]["text"], use)] == row["answerKey"]
    for row in asked(world, "arc_challenge", "test"):
        kind = re.search(r"looks for a (\w+)\.", row["question"]).group(1)
        place = only(row["choices"]["text"], KINDS[kind][0])
        assert row["choices"]["label"][place] == row["answerKey"]
    for row in asked(world, "openbookqa", "test"):
        use = re.search(r"wants to (.+) something", row["question_stem"]).group(1)
        assert row["choices"]["label"][only(row["choices"]["text"], use)] == row["answerKey"]
    for row in asked(world, "hellaswag"):
        use = re.search(r"wants to (.+) something", row["ctx"]).group(1)
        assert str(only(row["endings"], use)) == row["label"]
    for row in asked(world, "winogrande"):
        use = re.search(r"_ is something to (.+)\.", row["sentence"]).group(1)
        assert str(only([row["option1"], row["option2"]], use) + 1) == row["answer"]
    for row in asked(world, "piqa"):
        use = re.search(r"To (.+) something", row["goal"]).group(1)
        assert only([row["sol1"], row["sol2"]], use) == row["label"]
    for row in asked(world, "social_i_qa"):
        use = re.search(r"wanted to (.+) something", row["context"]).group(1)
        assert only([row[f"answer{letter}"] for letter in "ABC"], use) + 1 == int(row["label"])
    for row in asked(world, "boolq"):
        thing, kind = re.fullmatch(r"is a (\w+) a (\w+)", row["question"]).groups()
        assert (thing in KINDS[kind][1]) == bool(row["label"])


def test_both_answers_and_every_letter_come_up(world):
    assert {row["label"] for row in asked(world, "boolq")} == {0, 1}
    assert {row["answerKey"] for row in asked(world, "arc_easy", "test")} == set("ABCD")
    letters = {row["output"] for row in read(world.sources["alpaca_gpt4"])}
    assert set("ABCD") < letters


@pytest.mark.parametrize("name", [name for name in SUITES if SUITES[name].table])
def test_the_harness_reads_them(world, name):
    (suite,) = find([name])
    built = harness.build(suite, Documents(world.documents), judge=lambda *_: [])
    tasks = harness.leaves(built)
    assert len(tasks) == (len(documents.SUBJECTS) if suite.domains else 1)
    assert all(len(task.eval_docs) == documents.ASKED for task in tasks)


def test_documents_lie_where_evaluation_looks_for_them(world):
    folders = {source.folder for source in SOURCES.values()}
    assert {path.name for path in world.documents.iterdir()} == folders
