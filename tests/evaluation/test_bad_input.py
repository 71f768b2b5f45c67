"""Every mistake: one sentence, exit code 2, no traceback, before the model loads where it can."""

import json
import multiprocessing
import os
import resource
import shutil
import sys
from pathlib import Path

import pytest
import torch
from lm_eval.tasks import TaskManager
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from losia_cli.cli import main
from losia_cli.evaluation import checkpoint, harness, loading, results, sandbox, store
from losia_cli.evaluation.documents import Documents
from losia_cli.evaluation.suites import SUITES
from tests.e2e.conftest import losia, make_model
from tests.evaluation.knowing import read
from tests.evaluation.scripted import one_of_each, write

pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return one_of_each(tmp_path_factory.mktemp("documents"), count=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "good", max_position_embeddings=512)


@pytest.fixture
def copy(model, tmp_path):
    """A copy of the model, to be damaged."""
    return Path(shutil.copytree(model, tmp_path / "copy"))


@pytest.fixture
def says(monkeypatch, capsys):
    """The sentence that the command refuses with."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["losia", "eval", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 2
        assert said.startswith("losia: ")
        assert said.count("\n") == 1, said
        return said.strip()

    return run


@pytest.fixture
def early(says, monkeypatch):
    """The same, of a command that must refuse before it loads the model."""

    def load(*_):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(loading, "load_model", load)
    return says


# ------------------------------------------------------------------------- what is asked

ASKED = {
    "no model": ([], "one run or model, and 0 are given"),
    "two models": (["a", "b"], "one run or model, and 2 are given"),
    "base and adapter": (["{model}", "--base", "--adapter", "x"], "--base and --adapter: give one"),
    "a raised two": (["{model}", "--batch", "²"], "--batch: '²' is neither"),
    "no suite": (["{model}"], "--suite"),
    "a suite that is none": (["{model}", "--suite", "arc-ee"], "did you mean arc-e?"),
    "a task that is none": (
        ["{model}", "--suite", "gsm8k_cot_zero_shot"], "did you mean gsm8k_cot_zeroshot?"
    ),
    "a tag": (["{model}", "--suite", "ai2_arc"], "arc_challenge"),
    "code not allowed": (["{model}", "--suite", "table1", "--data", "{data}"], "--allow-code"),
    "allow": (["{model}", "--suite", "mbpp", "--allow-code=sandbox"], "did you mean sandboxed"),
    "a batch of none": (["{model}", "--suite", "arc-e", "--batch", "0"], "--batch"),
    "a batch of words": (["{model}", "--suite", "arc-e", "--batch", "auot"], "--batch"),
    "a dtype": (["{model}", "--suite", "arc-e", "--dtype", "bfloat61"], "did you mean bfloat16"),
    "a backend": (["{model}", "--suite", "arc-e", "--backend", "vlm"], "did you mean vllm"),
    "no template": (["{model}", "--suite", "arc-e", "--data", "{data}", "--chat"], "template"),
    "no such data": (["{model}", "--suite", "arc-e", "--data", "{data}/none"], "{data}/none"),
    "data of another kind": (["{model}", "--suite", "arc-e", "--data", "{model}"], "arc_easy"),
    "the base of no run": (["{model}", "--suite", "arc-e", "--base"], "losia_run.json"),
}  # fmt: skip
ASKED |= {
    f"a limit of {limit}": (
        ["{model}", "--suite", "arc-e", "--data", "{data}", "--limit", limit], f"--limit: {said}"
    )
    for limit, said in {
        "0": "0", "-1": "-1", "0%": "0%", "101%": "101%", "1.5": "'1.5'", "ten": "'ten'",
        "4": "4 is past the end, since arc-e has 3", "nan%": "nan%", "inf%": "inf%",
    }.items()
}  # fmt: skip
ASKED |= {
    f"{option} {value}": (
        ["{model}", "--suite", "mbpp", "--data", "{data}", "--allow-code", option, value], option
    )
    for option, values in {
        "--temperature": ("0", "-1", "nan"), "--top-p": ("0", "1.5", "-0.1", "nan")
    }.items()
    for value in values
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_what_cannot_be_asked(early, model, data, name):
    arguments, said = ASKED[name]
    places = {"model": model, "data": data}
    assert said.format(**places) in early(*(text.format(**places) for text in arguments))
    assert not (model / "eval").exists()


@pytest.mark.skipif(loading.find_spec("vllm") is not None, reason="vLLM is installed")
def test_a_backend_that_is_not_installed(early, model, data):
    said = early(model, "--suite", "arc-e", "--data", data, "--backend", "vllm")
    assert "pip install vllm" in said


def test_a_machine_without_a_sandbox(early, model, data, monkeypatch):
    monkeypatch.setattr(sandbox, "_KINDS", ())
    said = early(model, "--suite", "mbpp", "--data", data, "--allow-code")
    assert "--allow-code=unsandboxed" in said


# ------------------------------------------------------------------------- models


def test_folders_without_a_model(early, tmp_path, copy):
    ask = ["--suite", "arc-e"]
    assert f"there is no folder {tmp_path}/none" in early(tmp_path / "none", *ask)
    (tmp_path / "empty").mkdir()
    assert "no config.json" in early(tmp_path / "empty", *ask)
    (copy / "model.safetensors").unlink()
    assert f"{copy} holds no weights" in early(copy, *ask)


def test_a_model_without_tokenizer(early, copy):
    for path in copy.glob("tokenizer*"):
        path.unlink()
    assert f"{copy} holds no tokenizer" in early(copy, "--suite", "arc-e")


DAMAGED = [
    (name, content)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json")
    for content in ("{", "", "[1]", "{}")
    if (name, content) != ("tokenizer_config.json", "{}")  # a tokenizer without special tokens
]


@pytest.mark.parametrize(("name", "content"), DAMAGED)
def test_a_damaged_file_of_the_model_is_named(early, copy, data, name, content):
    (copy / name).write_text(content)
    assert str(copy) in early(copy, "--suite", "arc-e", "--data", data)


def test_a_model_of_an_unknown_kind(early, copy, data):
    (copy / "config.json").write_text(json.dumps({"model_type": "perceptron"}))
    assert "perceptron" in early(copy, "--suite", "arc-e", "--data", data)


def test_weights_that_are_damaged_or_missing(says, copy, data):
    path = copy / "model.safetensors"
    weights = load_file(path)
    path.write_bytes(path.read_bytes()[:-100])
    assert str(copy) in says(copy, "--suite", "arc-e", "--data", data)
    weights.pop("model.norm.weight")
    save_file(weights, path, {"format": "pt"})
    assert "model.norm.weight" in says(copy, "--suite", "arc-e", "--data", data)
    assert not (copy / "eval" / results.FILE).exists()


def test_a_tokenizer_without_bos(early, copy, data):
    path = copy / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "bos_token": None}))
    assert "no BOS token" in early(copy, "--suite", "arc-e", "--data", data, "--bos")


def test_a_record_that_is_damaged(early, copy, data):
    (copy / "losia_run.json").write_text('{"recipe": {')
    assert "losia_run.json" in early(copy, "--suite", "arc-e", "--data", data)


def test_more_tokens_than_the_context_holds(early, tmp_path, data):
    small = make_model(tmp_path / "small", max_position_embeddings=256)
    said = early(small, "--suite", "gsm8k-cot", "--data", data)
    assert "gsm8k-cot generates up to 256 tokens" in said
    assert "context holds 256" in said


def test_a_prompt_that_never_fits(says, tmp_path, data):
    small = make_model(tmp_path / "small", max_position_embeddings=32)
    copied = Path(shutil.copytree(data, tmp_path / "data"))
    rows = read(data / "arc_easy/test.jsonl")
    rows[1]["choices"]["text"][2] = "a choice of more than thirty-two tokens " * 5
    write(copied, "arc_easy/test", rows)
    said = says(small, "--suite", "arc-e", "--data", copied)
    assert "arc_easy" in said
    assert "document 1" in said
    assert "32 tokens" in said


# ------------------------------------------------------------------------- adapters


@pytest.fixture
def adapter(model, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(model)
    tuned = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    tuned.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("changes", "layer"),
    [({"hidden_size": 64}, "features"), ({"intermediate_size": 64}, "down_proj"),
     ({"num_hidden_layers": 2}, "layers.2"), ({"num_attention_heads": 8}, "q_proj")],
)  # fmt: skip
def test_an_adapter_of_another_base(early, adapter, tmp_path, data, changes, layer):
    other = make_model(tmp_path / "other", max_position_embeddings=512, **changes)
    said = early(other, "--adapter", adapter, "--suite", "arc-e", "--data", data)
    assert f"the adapter {adapter} was made for" in said
    assert f"does not fit {other}" in said
    assert layer in said


def test_an_adapter_that_is_not_there(early, adapter, model, tmp_path):
    for place in (tmp_path / "none", model):
        said = early(model, "--adapter", place, "--suite", "arc-e")
        assert f"--adapter: {place} holds no adapter" in said
    (adapter / "adapter_model.safetensors").unlink()
    assert "holds no adapter" in early(model, "--adapter", adapter, "--suite", "arc-e")


def test_an_adapter_whose_base_is_gone_or_that_is_damaged(early, adapter, model, tmp_path):
    path = adapter / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "base_model_name_or_path": str(tmp_path / "gone")}))
    assert f"there is no folder {tmp_path / 'gone'}" in early(adapter, "--suite", "arc-e")
    path.write_text("{")
    assert str(path) in early(model, "--adapter", adapter, "--suite", "arc-e")
    assert str(path) in early(adapter, "--suite", "arc-e")
    path.write_text(json.dumps({**settings, "base_model_name_or_path": None}))
    assert f"{adapter} does not say of which model it is" in early(adapter, "--suite", "arc-e")


def test_an_adapter_without_a_vocabulary_has_its_bases(adapter, model):
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    assert checkpoint.find(str(model), adapter=adapter).tokenizer == model


# ------------------------------------------------------------------------- documents


def test_documents_are_checked_before_the_model_loads(early, model, data, tmp_path):
    copied = Path(shutil.copytree(data, tmp_path / "data"))
    path = copied / "arc_easy/test.jsonl"
    ask = [model, "--suite", "mmlu-ppl", "--suite", "arc-e", "--data", copied]
    path.write_text('{"question": "Which?", "choices": {}}\n')
    assert f"{path}: the column answerKey is missing" in early(*ask)
    path.write_text("")
    assert f"{path} holds no rows" in early(*ask)
    path.unlink()
    assert str(path.with_suffix("")) in early(*ask)
    shutil.rmtree(copied / "mmlu/sociology")
    said = early(*ask)
    assert f"{copied / 'mmlu'} holds none of mmlu_social_sciences" in said
    assert "one subject of each domain" in said


def test_a_part_of_mmlu_is_asked_whatever_else_the_harness_has(data):
    """Tags of sets that are no folders of parts are none of its business."""
    places = [str(harness.TASKS / place) for place in ("mmlu/default", "glue")]
    index = TaskManager(include_path=places, include_defaults=False)
    assert "glue" in index.all_tags
    built = harness.build(SUITES["mmlu-ppl"], Documents(data), None, lambda _: index)
    assert 4 <= len(harness.leaves(built)) < 57


# ------------------------------------------------------------------------- results


def test_a_results_folder_that_cannot_be_written(says, model, data, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for place in ("file", "file/eval"):
        said = says(model, "--suite", "arc-e", "--data", data, "--out", tmp_path / place)
        assert f"{tmp_path / place} cannot be written into" in said
        assert "--out" in said


def test_results_that_are_damaged_or_of_another_schema(says, model, data, tmp_path):
    ask = [model, "--suite", "arc-e", "--data", data, "--out", tmp_path]
    theirs = '{"eval_loss": 1.0}'
    for content, said in (
        ("{", "damaged"),
        ('{"schema": 99}', "schema 99"),
        ("[]", "damaged"),
        (theirs, "is LLaMA-Factory's"),
    ):
        (tmp_path / results.FILE).write_text(content)
        assert said in says(*ask)
        assert (tmp_path / results.FILE).read_text() == content
    (tmp_path / results.FILE).unlink()
    (tmp_path / store.FILE).write_text("this is no database" * 100)
    assert str(tmp_path / store.FILE) in says(*ask)


def limited(arguments, size, said, code):
    """The command in a process whose files cannot grow: what stands for a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    sys.argv = ["losia", "eval", *map(str, arguments)]
    with open(said, "w") as file:  # noqa: PTH123
        os.dup2(file.fileno(), 2)
        sys.stderr = file
        try:
            main()
        except SystemExit as ended:
            code.value = ended.code


def test_a_full_disk_is_said_and_the_same_command_goes_on(
    model, data, tmp_path, capsys, monkeypatch
):
    ask = [model, "--data", data, "--suite", "mmlu-ppl", "--suite", "arc-e", "--batch", "1"]
    out, whole = tmp_path / "out", tmp_path / "whole"
    monkeypatch.setattr(sys, "argv", ["losia", "eval", *map(str, [*ask, "--out", whole])])
    with pytest.raises(SystemExit):
        main()
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    context, ended = multiprocessing.get_context("fork"), []
    for size in (largest // 4, largest - 100):
        code = context.Value("i", -1)
        said = tmp_path / "said"
        process = context.Process(target=limited, args=([*ask, "--out", out], size, said, code))
        process.start()
        process.join(1800)
        ended.append(code.value)
        text = said.read_text()
        assert text.startswith("losia: could not "), text
        assert text.count("\n") == 1
        assert "disk" in text or "space" in text
    assert ended == [2, 2]
    monkeypatch.setattr(sys, "argv", ["losia", "eval", *map(str, [*ask, "--out", out])])
    with pytest.raises(SystemExit) as again:
        main()
    assert again.value.code in (0, None)
    for name in ("mmlu-ppl", "arc-e"):
        file = f"samples/{name}.jsonl"
        assert (out / file).read_bytes() == (whole / file).read_bytes()


def test_nan_is_named_and_never_a_score(says, copy, data):
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    for suite in ("arc-e", "gsm8k-cot"):
        assert "with NaN" in says(copy, "--suite", suite, "--data", data)
    assert not (copy / "eval" / results.FILE).exists()


# ------------------------------------------------------------------------- finished results


@pytest.fixture(scope="module")
def finished(model, data, tmp_path_factory):
    """Two results, of suites that differ, and one of other documents."""
    from rich.console import Console

    from losia_cli.evaluation.run import evaluate
    from losia_cli.evaluation.settle import Request

    folder = tmp_path_factory.mktemp("results")
    other = Path(shutil.copytree(data, folder / "other documents"))
    write(other, "arc_easy/test", read(data / "arc_easy/test.jsonl")[::-1])
    for name, suite, place in (("a", "arc-e", data), ("b", "boolq", data), ("c", "arc-e", other)):
        request = Request(target=str(model), suites=[suite], data=place, out=folder / name)
        evaluate(request, Console(quiet=True))
    return folder


def test_results_that_cannot_be_compared_or_shown(early, finished):
    a, b, c = (finished / name for name in "abc")
    assert "share no suite (arc-e and boolq)" in early("--compare", a, b)
    assert "document 0 of arc_easy is not the same in both" in early("--compare", a, c)
    assert "holds no eval_results.json" in early("--compare", a, finished / "none")
    assert "two folders" in early("--compare", a)
    assert "a folder with results and a suite" in early("--show", a)
    assert "--json goes with" in early("--show", a, "arc-e", "--json")
    assert "--suite boolq" in early("--show", a, "boolq")
    shutil.copy(a / "samples/arc-e.jsonl", b / "samples")  # of a run that ended before its result
    assert "--suite arc-e" in early("--show", b, "arc-e")
    both = ["--compare", a, a, "--suite", "arc-e"]
    assert "share nothing of boolq" in early(*both, "--suite", "boolq")
    assert "give one" in early("--compare", "--show", a, a)
    assert "holds no eval_results.json" in early("--show", finished / "none", "arc-e")


# ------------------------------------------------------------------------- the command itself


def test_a_hub_out_of_reach(model, tmp_path):
    done = losia("eval", model, "--suite", "arc-e", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("losia: the dataset allenai/ai2_arc (ARC-Easy)")
    assert "--data DIR" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_model_of_the_hub_out_of_reach(tmp_path):
    done = losia("eval", "no-such/model", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("losia: there is no folder no-such/model")
    assert done.stderr.count("\n") == 1
