"""Table 15 from step benchmarks made up by hand, and GaLore as one of the rows."""

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from losia_cli import paper
from losia_cli.bench import galore, latency, models
from losia_cli.bench.latency import Latency, changes, latencies, printed, render
from losia_cli.bench.methods import Row, TrainingStep
from losia_cli.bench.models import load_base, sharing_copy
from losia_cli.bench.settings import StepSettings
from losia_cli.bench.step import FULL_GRADIENT, Turn, summarize
from losia_cli.cli.app import app
from losia_cli.errors import UserError
from tests.bench.command import bench
from tests.models import LAYERS, batches, tiny, weights

TOKENS = 4 * 2048


def turn(forward, backward, optimizer, **changes):
    """A turn whose phases take these microseconds per token."""
    step = tuple(value * TOKENS / 1e6 for value in (forward, backward, optimizer))
    return [Turn([step], **changes)]


def result(turns, checkpointing=True, model="llama2-7b", device="a GPU"):
    settings = StepSettings(model, batch=4, tokens=2048, checkpointing=checkpointing)
    listed = [
        Row(name.removesuffix("-scored"), scored=name.endswith("-scored"))
        for name in turns
        if name != FULL_GRADIENT
    ]
    return json.loads(
        json.dumps(
            {
                "benchmark": "step",
                "settings": asdict(settings.filled(on_gpu=True)),
                "machine": {"device": device, "threads": 1},
                "rows": summarize(listed, turns),
            }
        )
    )


WITH = {
    "floor": turn(60, 120, 0),
    "lora": turn(80, 240, 2, peak_bytes=24_000_000_000),
    "galore": turn(64, 200, 0, first=40 + 264 * TOKENS / 1e6),
    "losia-pro-scored": turn(72, 180, 4, peak_bytes=21_000_000_000),
    FULL_GRADIENT: [Turn([(0.01,)])],
}


def test_seconds_become_microseconds_per_token_and_bytes_gigabytes():
    found = {entry.name: entry for entry in latencies(result(WITH))}
    assert list(found) == ["lora", "galore", "losia-pro-scored"]
    phases = {"forward": 80, "backward": 240, "other": 2, "total": 322}
    assert found["lora"].phases == pytest.approx(phases)
    assert found["lora"].memory == pytest.approx(24)
    assert found["galore"].memory is None


def test_galores_projections_are_spread_over_the_steps_they_serve():
    phases = next(e for e in latencies(result(WITH)) if e.name == "galore").phases
    share = 1e6 * 40 / 200 / TOKENS
    assert phases["other"] == pytest.approx(share)
    assert phases["total"] == pytest.approx(264 + share)
    assert phases["backward"] == pytest.approx(200)


def test_the_papers_own_574_seconds_in_500_steps_are_its_other():
    assert (
        pytest.approx(paper.value(15, "other", checkpointing="with", method="galore"), abs=0.05)
        == 1e6 * 574 / 500 / TOKENS
    )


def test_changes_are_against_lora():
    lora = {"forward": 80.0, "backward": 240.0, "other": 0.0, "total": 320.0}
    mine = {"forward": 60.0, "backward": 300.0, "other": 5.0, "total": 365.0}
    assert changes(mine, lora) == pytest.approx(
        {"forward": -25.0, "backward": 25.0, "total": 14.0625}
    )
    assert changes(mine, {}) == {}


def test_the_papers_changes_follow_from_its_microseconds_within_one_percent():
    lora = {p: paper.value(15, p, checkpointing="with", method="lora") for p in latency.PHASES}
    for row in paper.table(15).rows:
        if row.fields["method"].startswith("losia"):
            for phase, change in changes(row.values, lora).items():
                assert change == pytest.approx(row.values[f"{phase}, %"], abs=1.05)


def test_without_checkpointing_the_change_is_still_against_lora_with():
    without = result({**WITH, "losia-pro-scored": turn(60, 100, 1)}, False)
    text = render([result(WITH), without])
    line = next(x for x in text.splitlines() if x.startswith("losia-pro-scored, no checkpointing"))
    assert line.split()[3:] == ["60.0", "100.0", "1.0", "161.0", "-25.0", "-58.3", "-50.0", "–"]
    alone = next(x for x in render([without]).splitlines() if x.startswith("losia-pro-scored"))
    assert alone.split()[-4:] == ["–"] * 4


def test_the_papers_row_follows_ours_and_only_for_its_model():
    lines = render([result(WITH)]).splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("losia-pro-scored"))
    numbers = ["71.4", "173.4", "0.0", "244.8", "-3.5", "-34.3", "-27.6", "21.90"]
    assert lines[place + 1].split() == ["the", "paper", *numbers]
    assert "the paper" not in render([result(WITH, model="tiny-1024")])
    assert printed(result(WITH), "losia-pro") is None  # beside the scored steps alone


def test_the_papers_sizes_stand_beside_its_row_and_others_alone():
    pro, lora = WITH["losia-pro-scored"], WITH["lora"]
    sizes = {"losia p=1/8 p_o=1/8": pro, "losia p=1/4 p_o=1/8": pro, "lora r=64": lora}
    lines = render([result({"floor": WITH["floor"]} | sizes)]).splitlines()
    theirs = {
        before[: before.index("  ")]: line.split()[2:]
        for before, line in pairwise(lines)
        if line.startswith("  the paper")
    }
    assert theirs.keys() == {"losia p=1/8 p_o=1/8", "lora r=64"}
    assert theirs["losia p=1/8 p_o=1/8"][3:] == ["290.4", "-5.4", "-16.5", "-14.1", "21.90"]
    ours = next(line for line in lines if line.startswith("losia p=1/8"))
    assert ours.split()[-2] == f"{100 * (256 / 322 - 1):+.1f}"  # against our LoRA of rank 64


def test_the_papers_lora_without_checkpointing_ran_out_of_memory():
    without = result({"floor": turn(1, 1, 1), "lora": []}, checkpointing=False)
    assert latencies(without) == [Latency("lora", False, {}, failed=True)]
    lines = render([without]).splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("lora,"))
    assert lines[place].split() == "lora, no checkpointing out of memory".split()
    assert lines[place + 1].split() == "the paper out of memory".split()


def write(folder, name, content):
    file = folder / name
    file.write_text(json.dumps(content))
    return str(file)


def test_the_command_prints_and_draws(tmp_path):
    files = [
        write(tmp_path, "a.json", result(WITH)),
        write(tmp_path, "b.json", result({"floor": turn(1, 1, 1), "lora": []}, False)),
    ]
    plot = tmp_path / "plot.png"
    outcome = CliRunner().invoke(app, ["bench", "latency", *files, "--plot", str(plot)])
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.rstrip("\n") == render(latency.read([Path(file) for file in files]))
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "is none of losia bench step's or sizes' results"),
        ({"benchmark": "memory"}, "is none of losia bench step's or sizes' results"),
        (result(WITH, device="another GPU"), "has the device another GPU, but .* has a GPU"),
        (result(WITH, model="tiny-1024"), "has the model tiny-1024, but .* has llama2-7b"),
        (
            {**result({}), "benchmark": "sizes", "rows": {"lora r=16": {"trainable": 3}}},
            "holds counts alone",
        ),
    ],
)
def test_what_is_no_like_measurement_is_refused(content, message, tmp_path):
    files = [Path(write(tmp_path, *pair)) for pair in (("a", result(WITH)), ("b", content))]
    with pytest.raises(UserError, match=message):
        latency.read(files)


def test_files_that_cannot_be_read_or_written_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        latency.read([tmp_path / "none.json"])
    (tmp_path / "text").write_text("no json")
    with pytest.raises(UserError, match="is not JSON"):
        latency.read([tmp_path / "text"])


# ------------------------------------------------------------------ GaLore


def test_galore_trains_linears_and_head_and_leaves_no_gradient():
    model = tiny(dtype=torch.float32)
    before = weights(model)
    training = TrainingStep(Row("galore"), sharing_copy(model), batches(1)[0])
    for phase in training.phases:
        phase()
    moved = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert len(moved) == LAYERS * 7 + 1
    assert "lm_head.weight" in moved
    assert all("norm" not in name and "embed" not in name for name in moved)
    assert all(parameter.grad is None for parameter in training.model.parameters())


def test_galore_moves_a_projected_weight_within_its_projection(monkeypatch):
    """At rank 1 the update of a linear has rank 1; the head's has more."""
    monkeypatch.setattr(galore, "RANK", 1)
    model = tiny(dtype=torch.float32)
    before = weights(model)
    training = TrainingStep(Row("galore"), sharing_copy(model), batches(1)[0])
    for phase in training.phases:
        phase()
    moved = {name: value - before[name] for name, value in weights(model).items()}
    ranks = {
        name: torch.linalg.matrix_rank(moved[name].double(), rtol=1e-2).item()
        for name in ("model.layers.1.mlp.up_proj.weight", "lm_head.weight")
    }
    assert ranks["model.layers.1.mlp.up_proj.weight"] == 1
    assert ranks["lm_head.weight"] > 1


# ------------------------------------------------------------------ forward is forward


def test_with_checkpointing_forward_runs_every_layer_once_and_backward_again():
    """So that recomputation is backward's, as in the paper's rows with checkpointing."""
    for name in ("lora", "losia", "losia-pro"):
        training = TrainingStep(
            Row(name), sharing_copy(tiny(dtype=torch.float32)), batches(1)[0], checkpointing=True
        )
        calls = []
        for module in training.model.modules():
            if type(module).__name__ == "LlamaMLP":
                module.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        counts = []
        for phase in training.phases:
            phase()
            counts.append(len(calls))
        assert counts == [LAYERS, 2 * LAYERS, 2 * LAYERS], name


# ------------------------------------------------------------------ refusals


def test_a_preset_larger_than_the_memory_is_refused_in_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(models, "_memory", lambda device: 16 * 10**9)
    message = "llama2-7b takes 27.0 GB in float32, but the CPU has 16.0 GB of memory"
    with pytest.raises(UserError, match=message):
        load_base("llama2-7b", torch.float32, torch.device("cpu"))
    assert bench("step", "--model", "llama2-7b", "--dtype", "float32") == 2
    error = capsys.readouterr().err
    assert "losia bench step --model smollm2-135m" in error
    assert len(error.splitlines()) == 1
    monkeypatch.undo()
    assert load_base("tiny-1024", torch.float32, torch.device("cpu")).num_parameters() > 0


def test_galore_without_its_package_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(galore, "find_spec", lambda name: None)
    assert bench("step", "--methods", "lora,galore") == 2
    assert "pip install galore-torch" in capsys.readouterr().err
