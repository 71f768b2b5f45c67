"""`losia eval` as a whole: what it asks, scores, records and shows."""

import hashlib
import io
import json
from statistics import mean, stdev

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from losia_cli.cli.app import app
from losia_cli.errors import UserError
from losia_cli.evaluation import comparison, report, results
from losia_cli.evaluation.run import evaluate
from losia_cli.evaluation.sandbox import find_sandbox
from losia_cli.evaluation.settle import Request
from losia_cli.evaluation.suites import GROUPS, SUITES
from tests.e2e.conftest import losia, make_model
from tests.evaluation.conftest import SHARED
from tests.evaluation.knowing import KNOWN, blank, lessons, read, teach, tokenizer_of
from tests.evaluation.scripted import one_of_each
from tests.evaluation.test_model import plain_likelihood

CHOICES = {  # how many each document has
    "mmlu-ppl": 4, "mmlu-continuation": 4, "arc-c": 4, "arc-e": 4, "hellaswag": 4, "winogrande": 2,
    "piqa": 2, "obqa": 4, "siqa": 3, "boolq": 2,
}  # fmt: skip
GENERATED = [name for name in SUITES if name not in CHOICES and not SUITES[name].code]


def ask(model, suites, data, **more):
    request = Request(target=str(model), suites=suites, data=data, **more)
    return evaluate(request, Console(quiet=True))


def shown(table):
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()


def command(*arguments):
    """The command in this process; what it prints on standard output."""
    found = CliRunner().invoke(app, ["eval", *map(str, arguments)], env={"COLUMNS": "200"})
    assert found.exit_code == 0, found.output
    return found.stdout


# ------------------------------------------------------------- documents written by hand


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return one_of_each(tmp_path_factory.mktemp("documents"), count=2)


@pytest.fixture(scope="session")
def sandboxed():
    """Every suite, if programs can be run here; else all but those that run some."""
    try:
        find_sandbox()
    except UserError:
        return [name for name, suite in SUITES.items() if not suite.code]
    return list(SUITES)


@pytest.fixture(scope="session")
def untrained(data, sandboxed, tmp_path_factory):
    """A model that knows nothing, and what the command says of it."""
    folder = tmp_path_factory.mktemp("untrained model")
    blank().save_pretrained(folder)
    tokenizer_of(data).save_pretrained(folder)
    asked = [word for name in sandboxed for word in ("--suite", name)]
    done = losia("eval", folder, *asked, "--data", data, "--allow-code", "--json")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return folder, json.loads(done.stdout)


@pytest.fixture(scope="session")
def trained(untrained, data, sandboxed, tmp_path_factory):
    """The same model, taught the answers to all that it was asked."""
    before, _ = untrained
    folder = tmp_path_factory.mktemp("trained model")
    model = AutoModelForCausalLM.from_pretrained(before)
    tokenizer = AutoTokenizer.from_pretrained(before)
    assert teach(model, tokenizer, lessons(data, before / "eval/samples")) < KNOWN
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    suites = [name for name in sandboxed if name != "mbpp"]
    return folder, ask(folder, suites, data, allow_code=True)


def test_a_model_that_knows_the_answers_scores_near_100(trained):
    _, found = trained
    assert len(found["suites"]) >= 14
    assert {name: s["score"] for name, s in found["suites"].items() if s["score"] < 0.9} == {}
    assert found["suites"]["gsm8k-5shot"]["also"]["exact_match,strict-match"]["score"] >= 0.9
    for name in ("mmlu-ppl", "mmlu-gen", "mmlu-continuation"):
        domains = found["suites"][name]["domains"].values()
        assert {part["score"] for part in domains} == {1.0}


def test_one_that_knows_nothing_writes_no_right_answer(untrained):
    _, found = untrained
    for name in (*GENERATED, "mbpp", "mbpp-greedy"):
        if name in found["suites"]:
            assert found["suites"][name]["score"] == 0


def test_samples_are_saved_with_their_verdicts(untrained, trained, data):
    for folder, found in (untrained, trained):
        for name, suite in found["suites"].items():
            lines = read(folder / f"eval/samples/{name}.jsonl")
            assert len(lines) == suite["documents"] == (8 if name.startswith("mmlu") else 2)
            assert mean(line["score"] for line in lines) == pytest.approx(suite["score"])
            whole = json.loads((folder / f"eval/lm_eval/{name}.json").read_text())
            task = SUITES[name].task
            assert whole["results"][task][suite["metric"]] == suite["score"]
            assert "samples" not in whole
    questions = [row["question"] for row in read(data / "gsm8k/test.jsonl")]
    lines = read(trained[0] / "eval/samples/gsm8k-cot.jsonl")
    for line, question in zip(lines, questions, strict=True):
        assert question in line["prompt"]
        assert line["responses"][0][0].strip() == line["target"]


def test_all_that_decides_a_score_is_recorded(untrained, data):
    folder, found = untrained
    assert json.loads((folder / "eval/eval_results.json").read_text()).items() <= found.items()
    assert found["schema"] == results.SCHEMA
    model = found["model"]
    assert (model["path"], model["adapter"], model["recipe"]) == (str(folder), None, {})
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert model["sha256"][name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert {"lm-eval", "torch", "transformers", "datasets", "tokenizers"} <= set(found["versions"])
    for name, suite in found["suites"].items():
        assert suite["settings"].items() >= {
            "dtype": "float32", "bos": True, "chat_template": False, "softmax": "float32",
            "seed": 1234, "fewshot_seed": 1234,
        }.items()  # fmt: skip
        assert {"device", "batch", "attention"} <= set(suite["settings"])
        assert (suite["partial"], suite["limit"], suite["truncated"]) == (False, None, 0)
        assert suite["shots"] == SUITES[name].shots
        assert suite["generation"] == SUITES[name].generation
        assert (suite["of"], suite["samples"]) == (suite["documents"], SUITES[name].samples)
        assert suite["seconds"] >= 0
        assert suite["versions"].keys() >= suite["configurations"].keys()
        assert all(len(text) == 64 for text in suite["hashes"].values())
        files = suite["datasets"]["local files"]
        assert files
        for place, digest in files.items():
            assert hashlib.sha256((data / place).read_bytes()).hexdigest() == digest
        if SUITES[name].code:
            assert suite["sandbox"] in ("bubblewrap", "namespaces")
            assert sum(suite["verdicts"].values()) == 2 * SUITES[name].samples


def test_the_table_shows_every_suite_and_table_2s_average(trained):
    _, found = trained
    text = shown(report.table(found, list(found["suites"])))
    for name, suite in found["suites"].items():
        assert name in text
        assert f"{100 * suite['score']:.2f}" in text
    average = mean(found["suites"][name]["score"] for name in GROUPS["table2"])
    (line,) = [line for line in text.splitlines() if "average" in line]
    assert f"{100 * average:.2f}" in line
    assert "partial" not in text


# ------------------------------------------------------------- two results, and single samples


def test_a_comparison_is_paired_and_names_what_flipped(untrained, trained, data):
    told = command("--compare", untrained[0], trained[0], "--json")
    found = json.loads(told)["suites"]
    assert set(found) == set(trained[1]["suites"])
    for name, suite in found.items():
        lines = [
            read(folder / f"eval/samples/{name}.jsonl") for folder in (untrained[0], trained[0])
        ]
        differences = [b["score"] - a["score"] for a, b in zip(*lines, strict=True)]
        count = len(differences)
        assert suite["documents"] == count
        assert suite["difference"] == pytest.approx(mean(differences))
        assert suite["stderr"] == pytest.approx(stdev(differences) / count**0.5)
        assert suite["b"] - suite["a"] == pytest.approx(suite["difference"])
        assert len(suite["gained"]) - len(suite["lost"]) == pytest.approx(sum(differences))
        if name in ("gsm8k-cot", "mbpp", "mbpp-greedy", "mmlu-gen", "winogrande"):
            assert suite["right"] is None
    documents = read(data / "arc_easy/test.jsonl")
    right = [row["choices"]["label"].index(row["answerKey"]) for row in documents]
    sure = [
        [line["responses"][number][0][0] for line, number in zip(read(path), right, strict=True)]
        for path in (folder / "eval/samples/arc-e.jsonl" for folder in (untrained[0], trained[0]))
    ]
    nats = [b - a for a, b in zip(*sure, strict=True)]
    assert found["arc-e"]["right"]["difference"] == pytest.approx(mean(nats))
    assert found["arc-e"]["right"]["stderr"] == pytest.approx(stdev(nats) / len(nats) ** 0.5)
    assert mean(nats) > 1  # it was trained to know
    assert found["gsm8k-cot"]["gained"] == ["gsm8k_cot_zeroshot 0", "gsm8k_cot_zeroshot 1"]
    table = command("--compare", untrained[0], trained[0])
    assert "+100.00 ± 0.00" in table
    assert "partial" not in table


def test_a_result_differs_in_nothing_from_itself(trained):
    for suite in comparison.compare(trained[0], trained[0] / "eval")["suites"].values():
        assert (suite["difference"], suite["stderr"]) == (0, 0)
        assert suite["gained"] == suite["lost"] == []


def test_samples_are_shown_all_or_the_wrong_ones(untrained, trained, data):
    rows = read(data / "arc_easy/test.jsonl")
    told = command("--show", trained[0], "arc-e")
    for row in rows:
        assert row["question"] in told
        for text, label in zip(row["choices"]["text"], row["choices"]["label"], strict=True):
            assert f"{'*' if label == row['answerKey'] else ' '} {text}  -" in told
    assert told.count(": right") == 2
    assert command("--show", trained[0], "arc-e", "--wrong") == ""
    told = command("--show", untrained[0], "gsm8k-cot", "--wrong")
    assert told.count(": wrong") == 2
    assert all(row["answer"] in told for row in read(data / "gsm8k/test.jsonl"))
    told = command("--show", trained[0], "winogrande")
    assert "cup is too large." in told
    assert "box is too large." in told


# ------------------------------------------------------------- part of the documents


def test_a_limited_run_says_which_whole_score_it_replaces(untrained, data, tmp_path):
    folder, _ = untrained
    said = io.StringIO()
    more = {"target": str(folder), "data": data, "out": tmp_path / "out"}
    evaluate(Request(suites=["arc-e"], **more), Console(quiet=True))
    console = Console(file=said, width=400)
    evaluate(Request(suites=["arc-c", "arc-e"], limit="1", **more), console)
    assert "replaces the whole score of arc-e" in said.getvalue()
    said.truncate(0)
    evaluate(Request(suites=["arc-e"], limit="1", **more), console)
    assert "replaces" not in said.getvalue()


def test_a_part_of_the_subjects_is_said(untrained):
    folder, found = untrained
    suite = found["suites"]["mmlu-ppl"]
    assert (suite["tasks"], suite["of_tasks"]) == (4, 57)
    assert "4 of 57 tasks" in shown(report.table(results.load(folder), ["mmlu-ppl"]))


@pytest.mark.parametrize(("limit", "recorded"), [("1", 1), ("50%", 0.5)])
def test_a_limited_run_is_partial_wherever_it_is_shown(untrained, data, tmp_path, limit, recorded):
    folder, _ = untrained
    out = tmp_path / "part"
    found = ask(folder, ["arc-e", "gsm8k-cot", "mmlu-ppl"], data, limit=limit, out=out)
    for name, documents in {"arc-e": 1, "gsm8k-cot": 1, "mmlu-ppl": 4}.items():
        suite = found["suites"][name]
        assert (suite["documents"], suite["of"]) == (documents, 2 * documents)
        assert (suite["partial"], suite["limit"]) == (True, recorded)
        assert len(read(out / f"samples/{name}.jsonl")) == documents
        assert f"{documents} of {2 * documents} documents" in command("--show", out, name)
    assert shown(report.table(found, ["arc-e", "mmlu-ppl"])).count("partial") == 2
    compared = json.loads(command("--compare", out, folder, "--json"))["suites"]
    assert {suite["partial"] for suite in compared.values()} == {True}
    assert compared["mmlu-ppl"]["documents"] == 4
    assert command("--compare", folder, out).count("partial") == 3


def test_all_of_the_documents_are_no_part(untrained, data, tmp_path):
    found = ask(untrained[0], ["arc-e"], data, limit="100%", out=tmp_path)
    assert (found["suites"]["arc-e"]["partial"], found["suites"]["arc-e"]["documents"]) == (
        False,
        2,
    )


# ------------------------------------------------------------- real documents


@pytest.fixture(scope="session", params=["llama", "gemma"])
def random_model(request, tmp_path_factory):
    """An untrained model of a family, and its results on real documents."""
    folder = tmp_path_factory.mktemp(request.param)
    tied = {"tie_word_embeddings": True} if request.param == "gemma" else {}
    make_model(folder, request.param, max_position_embeddings=4096, **tied)
    ask(folder, GENERATED, SHARED, limit="1")
    return folder, ask(folder, list(CHOICES), SHARED, limit="16")


shared = [
    pytest.mark.shared,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data slices in {SHARED}"),
]


def real(test):
    for mark in shared:
        test = mark(test)
    return test


@real
def test_every_suite_runs_on_real_documents(random_model):
    folder, found = random_model
    assert set(found["suites"]) == {*GENERATED, *CHOICES}
    for name, suite in found["suites"].items():
        part = 1 if name in GENERATED else 16
        documents = 8 * part if name.startswith("mmlu") else part
        assert (suite["documents"], suite["partial"]) == (documents, True)
        assert suite["truncated"] == 0
        assert (folder / f"eval/lm_eval/{name}.json").is_file()
        assert len(read(folder / f"eval/samples/{name}.jsonl")) == documents


@real
def test_an_untrained_model_is_at_chance(random_model):
    _, found = random_model
    for name, options in CHOICES.items():
        suite, chance = found["suites"][name], 1 / options
        error = (chance * (1 - chance) / suite["documents"]) ** 0.5
        assert abs(suite["score"] - chance) < 4 * error, name
    for name in GENERATED:
        assert found["suites"][name]["score"] == 0


@real
def test_likelihoods_and_accuracies_are_those_of_plain_forward_passes(random_model):
    folder, _ = random_model
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in CHOICES:
        for line in read(folder / f"eval/samples/{name}.jsonl")[:3]:
            scores = [response[0][0] for response in line["responses"]]
            for choice, score in zip(line["choices"], scores, strict=True):
                prompt, scored = line["prompt"], choice
                if name == "winogrande":  # what is scored follows the option
                    scored = " " + line["target"]
                    prompt += choice.removesuffix(scored)
                expected, _ = plain_likelihood(model, tokenizer, prompt, scored, True)
                assert score == pytest.approx(expected, rel=1e-4, abs=1e-4)
            if name != "winogrande":
                assert line["score"] == (scores.index(max(scores)) == line["target"])


@real
def test_acc_norm_is_per_character(random_model):
    folder, found = random_model
    for name in ("arc-c", "arc-e", "hellaswag", "piqa", "obqa"):
        right = []
        for line in read(folder / f"eval/samples/{name}.jsonl"):
            pairs = zip(line["responses"], line["choices"], strict=True)
            norm = [response[0][0] / (len(choice) - 1) for response, choice in pairs]
            right.append(norm.index(max(norm)) == line["target"])
        assert found["suites"][name]["also"]["acc_norm,none"]["score"] == pytest.approx(mean(right))


# ------------------------------------------------------------- the harness's own tasks


def test_of_several_filters_the_samples_are_the_headlines(trained, data, tmp_path):
    found = ask(trained[0], ["gsm8k"], data, out=tmp_path / "out")
    suite = found["suites"]["gsm8k"]
    lines = results.samples(results.load(tmp_path / "out"), "gsm8k")
    assert len(lines) == suite["documents"] == 2
    assert mean(line["score"] for line in lines) == suite["score"]
    assert suite["metric"] == "exact_match,strict-match"


def test_the_perplexity_of_whole_texts(trained, tmp_path):
    folder = tmp_path / "data/wikitext_document_level"
    folder.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        rows = [{"page": f"= {word} =\nThe {word} is here ."} for word in ("cat", "dog")]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = ask(trained[0], ["wikitext"], tmp_path / "data", out=tmp_path / "out")
    suite = found["suites"]["wikitext"]
    assert suite["metric"] == "word_perplexity,none"
    assert suite["score"] > 1
    lines = results.samples(results.load(tmp_path / "out"), "wikitext")
    assert [line["choices"] for line in lines] == [None, None]
    assert all(line["score"] < 0 for line in lines)  # log-likelihoods
    assert f" {suite['score']:.2f} " in shown(report.table(found, ["wikitext"])), "not in percent"


def test_a_score_of_all_documents_at_once(trained, data, tmp_path):
    """Matthews' correlation: a document alone is right or wrong, and nothing is paired."""
    folder, out = tmp_path / "data/glue/cola", tmp_path / "out"
    folder.mkdir(parents=True)
    rows = [{"sentence": f"The {w} is.", "label": n % 2, "idx": n} for n, w in enumerate("abcdef")]
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ask(trained[0], ["cola"], tmp_path / "data", out=out)
    ask(trained[0], ["arc-e"], data, out=out)
    lines = results.samples(results.load(out), "cola")
    for line in lines:
        scores = [response[0][0] for response in line["responses"]]
        assert line["score"] == (scores.index(max(scores)) == rows[line["document"]]["label"])
    told = command("--show", out, "cola", "--wrong")
    for line in lines:  # which are wrong differs between processors
        assert (f"document {line['document']}: wrong" in told) == (line["score"] == 0)
        assert f"document {line['document']}: right" not in told
    compared = comparison.compare(out, out)
    assert (list(compared["suites"]), compared["left_out"]) == (["arc-e"], ["cola"])
    assert "left out" in shown(comparison.table(compared))
    with pytest.raises(UserError, match="cola are no means"):
        comparison.compare(out, out, ["cola"])


def test_a_task_that_cannot_be_built_is_one_sentence(trained, data):
    with pytest.raises(UserError, match=r"ifeval cannot be built .*ModuleNotFoundError"):
        ask(trained[0], ["ifeval"], data)


def test_a_group_without_a_score_is_refused_with_its_tasks(trained, data):
    with pytest.raises(UserError, match=r"openllm is a group without a score .* name its tasks"):
        ask(trained[0], ["openllm"], data)
