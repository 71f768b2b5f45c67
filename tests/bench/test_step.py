"""Whole step benchmarks on a tiny model, and the ways to ask for one."""

import json
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from losia_cli.bench.models import load_base
from losia_cli.bench.settings import PRESETS, StepSettings
from losia_cli.bench.step import FULL_GRADIENT, render, run_step_benchmark
from losia_cli.cli.app import app
from losia_cli.errors import UserError
from tests.bench.command import bench
from tests.models import tiny, weights


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "a model"
    tiny(dtype=torch.float32).save_pretrained(folder)
    return str(folder)


def test_methods_take_turns_and_the_result_is_json(saved):
    lines = []
    settings = StepSettings(saved, ("lora", "losia-pro"), batch=1, tokens=8, repeats=2)
    result = json.loads(json.dumps(run_step_benchmark(settings, lines.append)))
    order = ["floor", "lora", "losia-pro", "losia-pro-scored", FULL_GRADIENT]
    assert lines == [f"round {number} of 2: {name}" for number in (1, 2) for name in order]
    assert list(result["rows"]) == order
    assert result["rows"]["floor"]["of_floor"]["median"] == 1.0
    assert result["rows"]["lora"]["of_lora"]["median"] == 1.0
    assert result["rows"]["losia-pro"]["seconds"]["optimizer"]["median"] > 0
    assert result["scored_linears"][0] == "model.layers.2.self_attn.q_proj"
    assert result["settings"]["model"] == saved
    on_gpu = torch.cuda.is_available()
    assert result["settings"]["dtype"] == ("bfloat16" if on_gpu else "float32")
    text = render(result)
    assert all(any(line.startswith(name) for line in text.splitlines()) for name in order)
    assert "1 x 8 tokens, checkpointing off, 2 rounds" in text


def test_a_path_gives_the_models_own_weights(saved):
    loaded = weights(load_base(saved, torch.float32, torch.device("cpu")))
    expected = weights(tiny(dtype=torch.float32))
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())


def test_presets_have_the_sizes_of_their_models():
    """Parameters as their model cards and the paper count them."""
    counts = {}
    for name in ("smollm2-135m", "llama2-7b"):
        model = load_base(name, torch.float32, torch.device("meta"))
        counts[name] = sum(parameter.numel() for parameter in model.parameters())
    assert counts == {"smollm2-135m": 134_515_008, "llama2-7b": 6_738_415_616}


def test_what_is_left_open_is_the_presets_or_the_devices():
    filled = StepSettings("llama2-7b").filled(on_gpu=True)
    preset = PRESETS["llama2-7b"]
    assert (filled.batch, filled.tokens, filled.dtype) == (4, 2048, "bfloat16")
    assert (filled.batch, filled.tokens) == (preset.batch, preset.tokens)
    own = StepSettings("a/model", batch=3, tokens=5, dtype="bfloat16").filled(on_gpu=False)
    assert (own.batch, own.tokens, own.dtype) == (3, 5, "bfloat16")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"methods": ("lorra",)}, "unknown method 'lorra'; did you mean lora"),
        ({"repeats": 0}, "repeats is 0, but must be at least 1"),
        ({"batch": -1}, "batch is -1"),
        ({"dtype": "float16"}, "dtype is 'float16', but must be one of auto"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        run_step_benchmark(StepSettings(**wrong))


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="it is none of tiny-1024"):
        load_base(str(tmp_path / "missing"), torch.float32, torch.device("cpu"))


def test_the_command_writes_json_and_prints_the_table(saved, tmp_path):
    file = tmp_path / "out.json"
    options = ["--methods", "lora", "--batch", "1", "--tokens", "8", "--repeats", "1"]
    outcome = CliRunner().invoke(
        app, ["bench", "step", "--model", saved, *options, "--json", str(file)]
    )
    assert outcome.exit_code == 0, outcome.output
    result = json.loads(file.read_text())
    assert list(result["rows"]) == ["floor", "lora"]
    assert outcome.stdout.strip() == render(result)


def test_it_runs_with_what_a_bare_gpu_machine_has(saved, tmp_path):
    """Torch, transformers and peft; transformers brings typer."""
    file = tmp_path / "out.json"
    program = (
        "import sys\n"
        "for name in ('llamafactory', 'lm_eval', 'datasets', 'trl', 'omegaconf', 'gguf'):\n"
        "    sys.modules[name] = None\n"
        "from losia_cli.cli import main\n"
        "main()"
    )
    words = ["--model", saved, "--methods", "lora,losia-pro", "--batch", "1", "--tokens", "8"]
    done = subprocess.run(
        [sys.executable, "-c", program, "bench", "step", *words, "--repeats", "1",
         "--checkpointing", "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_text())
    assert result["settings"]["checkpointing"] is True
    assert list(result["rows"])[:3] == ["floor", "lora", "losia-pro"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["step", "--json", "/nowhere/at/all.json"], "cannot write /nowhere/at/all.json"),
        (
            ["memory", "--methods", "losia-por"],
            "unknown method 'losia-por'; did you mean losia-pro",
        ),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(words, message, capsys):
    assert bench(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_asking_for_help_loads_no_torch():
    program = "import sys, losia_cli.cli.bench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_peak_memory_is_each_rows_own(saved):
    result = run_step_benchmark(StepSettings(saved, repeats=1, batch=2, tokens=64))
    peaks = {n: e["peak_bytes"] for n, e in result["rows"].items() if n != FULL_GRADIENT}
    assert all(peak > 0 for peak in peaks.values())
    assert peaks["floor"] == min(peaks.values())
    assert result["settings"]["dtype"] == "bfloat16"
