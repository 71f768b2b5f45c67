"""What `losia train` records for `losia analyze`, and what that shows and refuses."""

import json

import pytest
from rich.console import Console

from losia_cli.analysis import command
from losia_cli.analysis.selections import SIDES, read, side
from losia_cli.errors import UserError
from losia_cli.run_folder import SELECTIONS
from losia_cli.training.checkpoints import newest
from losia_cli.training.output import left_behind
from tests.e2e.conftest import losia, make_model

LAST = "layers.2.self_attn.v_proj"


def lines(folder):
    return [json.loads(line) for line in (folder / SELECTIONS).read_text().splitlines()]


def test_a_run_records_each_subnet_when_it_was_chosen(train, tmp_path):
    train(losia_initial_subnet="random", max_steps=9)
    found = {one.linear: one for one in read(tmp_path / "out")}
    # T = 2: a slot each for the output layer and three decoder layers; the fourth ends with step 8
    when = {"lm_head": (0, 2), "0": (0, 4), "1": (0, 6), "2": (0, 8)}
    for name, history in found.items():
        layer = name.split(".")[2] if "." in name else name
        assert history.steps == when[layer]
        shares = [side(getattr(history, each)).share for each in SIDES]
        # floor(320 / 8) rows of the output layer; a quarter of the others
        assert shares == ([1 / 8, 1.0] if name == "lm_head" else [0.25, 0.25])
    assert len(found) == 1 + 3 * 7


def test_a_resumed_run_has_the_record_of_one_that_never_stopped(train, tmp_path):
    train("whole", save_steps=5)
    folder, whole = tmp_path / "whole", lines(tmp_path / "whole")
    assert [entry["steps"] for entry in whole] == sorted(entry["steps"] for entry in whole)
    train("again", resume_from_checkpoint=str(folder / "checkpoint-5"), save_steps=100)
    assert lines(tmp_path / "again") == whole
    path = folder / SELECTIONS
    path.write_text(path.read_text() + '{"steps": 9, "lin')  # killed as it wrote
    train("whole", resume_from_checkpoint=str(folder / "checkpoint-5"), save_steps=100)
    assert lines(folder) == whole


def test_a_run_that_never_reselects_records_its_first_subnets(train, tmp_path):
    train(losia_schedule="static", losia_output_factor=1)
    assert {entry["steps"] for entry in lines(tmp_path / "out")} == {0}
    (first, *_) = read(tmp_path / "out")
    assert side(first.rows).kept is None


def test_another_methods_run_leaves_no_record_of_the_one_before(train, tmp_path):
    train(save_steps=9)
    record = tmp_path / "out" / SELECTIONS
    values = {"output_dir": str(tmp_path / "out"), "do_train": True, "overwrite_output_dir": True}
    assert record not in left_behind(values, newest(tmp_path / "out", print))
    own = {"losia_rank_factor": None, "losia_period": None}
    train(finetuning_type="full", max_steps=1, overwrite_output_dir=True, **own)
    assert not record.exists()


def test_tables_pictures_and_numbers(train, tmp_path):
    train("a", max_steps=17)
    train("b", max_steps=17, losia_rank_factor=0.125)
    console = Console(record=True, width=200)
    runs = [tmp_path / "a", tmp_path / "b"]
    picture, numbers = tmp_path / "p.png", tmp_path / "n.json"
    command.selections(runs, LAST, picture, numbers, console)
    said = console.export_text()
    assert said.count("v_proj") == 2
    assert said.count("like the first") >= 2
    assert picture.read_bytes()[:4] == b"\x89PNG"
    written = json.loads(numbers.read_text())
    history = next(one for one in read(runs[0]) if one.linear.endswith(LAST))
    figures = written[str(runs[0])][history.linear]
    assert figures["rows"]["kept"] == side(history.rows).kept


def refusal(*told):
    with pytest.raises(UserError) as caught:
        command.selections(*told, Console(quiet=True))
    return str(caught.value)


def test_what_is_refused(train, tmp_path):
    train(losia_schedule="static")
    out, picture = tmp_path / "out", tmp_path / "p.png"
    assert "holds no losia_selections.jsonl" in refusal([tmp_path], None, None, None)
    named = refusal([out], "no_proj", picture, None)
    assert "0 linears are called no_proj" in named
    assert "lm_head" in named
    assert "3 linears are called v_proj" in refusal([out], "v_proj", picture, None)
    assert "name a file in a folder that exists" in refusal(
        [out], LAST, tmp_path / "none/p.png", None
    )
    assert "p.txt ends in none of" in refusal([out], LAST, tmp_path / "p.txt", None)
    assert "name a file in a folder that exists" in refusal(
        [out], LAST, None, tmp_path / "none/n.json"
    )
    assert not picture.exists()
    (out / SELECTIONS).write_text('{"steps": 0}\n')
    assert "is damaged (KeyError" in refusal([out], None, None, None)


@pytest.mark.slow
def test_the_command(train, tmp_path):
    train(losia_schedule="static")
    done = losia("analyze", "selections", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "in brackets what drawing them at random gives" in " ".join(done.stdout.split())
    done = losia("analyze", "spectrum", tmp_path / "out", "--layers", "0,x")
    assert done.returncode == 2
    assert "neither numbers with commas nor all" in done.stderr


@pytest.fixture
def answers(train, tmp_path):
    """What `losia analyze spectrum` writes of runs, by name, trained with these changes."""

    def measured(*runs, **options):
        told = {"base": None, "layers": [], "top": 500, "plot": None, **options}
        file = tmp_path / "spectrum.json"
        folders = [str(tmp_path / run) for run in runs]
        command.spectrum(folders, json_file=file, console=Console(quiet=True), **told)
        found = json.loads(file.read_text())
        return [{one["linear"]: one for one in found[folder]} for folder in folders]

    return measured


def test_spectra_of_a_subnet_and_of_an_adapter(train, answers, tmp_path):
    own = {"losia_rank_factor": None, "losia_period": None}
    train("static", losia_schedule="static", losia_target="v_proj", losia_output_factor=0)
    with pytest.raises(FileNotFoundError):  # an adapter is no model.safetensors
        train("lora", finetuning_type="lora", lora_rank=1, lora_target="v_proj", **own)
    picture = tmp_path / "spectrum.png"
    subnet, adapter = answers("static", "lora", plot=picture)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert len(subnet) == len(adapter) == 3 * 7
    for found, most in ((subnet, 4), (adapter, 1)):  # a quarter of v_proj's 16 rows; rank one
        for name, one in found.items():
            trained = name.endswith("v_proj")
            assert (one["change"] > 0) is trained
            assert (one["rank"] > 0) is trained
            assert one["rank"] <= most + 1e-3
            if not trained:
                assert min(one["similarities"]) > 1 - 1e-5


def test_a_base_that_is_not_the_runs(train, answers, tmp_path, tied_model):
    train("out")
    (one,) = answers("out", layers=None, base=str(tmp_path / "out"))
    assert {figures["change"] for figures in one.values()} == {0.0}
    assert all(".1." in name for name in one)  # the middle one of three
    with pytest.raises(UserError, match=r"there is no layer 3, only 0 to 2"):
        answers("out", layers=[0, 3])
    with pytest.raises(UserError, match=r"does not say what it started from.*--base"):
        command.spectrum([str(tied_model)], None, None, 5, None, None, Console(quiet=True))
    with pytest.raises(UserError, match="in the base: name its own"):
        answers("out", base=str(make_model(tmp_path / "wide", intermediate_size=64)))
