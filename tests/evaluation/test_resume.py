"""Killed at any moment and run again: the same scores and texts, and never another's answers."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import load_file, save_file

from losia_cli.errors import UserError
from losia_cli.evaluation import generation, results, run, store, suites
from losia_cli.evaluation import model as answering
from losia_cli.evaluation.settle import Request
from losia_cli.evaluation.suites import SAMPLED, SUITES
from tests.evaluation.knowing import blank, read, tokenizer_of
from tests.evaluation.scripted import one_of_each, write

pytestmark = pytest.mark.usefixtures("on_the_cpu")

ASKED = ["arc-e", "gsm8k-cot", "sampled"]  # choices, greedy responses and drawn ones
MOMENTS = 20
start = multiprocessing.get_context("fork").Process  # a process without the seconds of imports


def ask(folder, out, names=ASKED, **more):
    request = Request(target=str(folder), suites=names, out=Path(out), **{"batch": 1, **more})
    return run.evaluate(request, Console(quiet=True))


def content(out, names=ASKED):
    """Every score, prompt, text and verdict of a results folder."""
    held = results.load(out)["suites"]
    return {
        name: (
            {k: v for k, v in held[name].items() if k != "seconds"},
            (out / f"samples/{name}.jsonl").read_bytes(),
            json.loads((out / f"lm_eval/{name}.json").read_text())["results"],
        )
        for name in names
    }


@pytest.fixture(scope="module", autouse=True)
def sampled_suite():
    """A suite of drawn responses that needs no sandbox."""
    suites.SUITES["sampled"] = replace(
        SUITES["gsm8k-cot"], name="sampled", generation={**SAMPLED, "temperature": 1.0}
    )
    yield
    del suites.SUITES["sampled"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return one_of_each(tmp_path_factory.mktemp("documents"), count=3)


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    """One that answers shortly: EOS is likely."""
    folder = tmp_path_factory.mktemp("model")
    made = blank()
    made.lm_head.weight.data[2] *= 4
    made.save_pretrained(folder)
    tokenizer_of(data).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whole(model, data, tmp_path_factory):
    """An undisturbed run: its folder."""
    out = tmp_path_factory.mktemp("undisturbed")
    ask(model, out, data=data)
    greedy, drawn = (
        [line["responses"] for line in read(out / f"samples/{name}.jsonl")] for name in ASKED[1:]
    )
    assert greedy != drawn
    return out


class Moments:
    """Counts the moments at which a run could end, and ends the process at one of them."""

    def __init__(self, fatal=None):
        self.seen, self.fatal = 0, fatal

    def pass_one(self):
        if self.seen == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen += 1

    def around(self, function):
        def wrapped(*args, **kwargs):
            self.pass_one()
            found = function(*args, **kwargs)
            self.pass_one()
            return found

        return wrapped


def watch(moments):
    """Every look into the store, write to it, pass through the model and written file counts."""
    store.Store.get = moments.around(store.Store.get)
    store.Store.put = moments.around(store.Store.put)
    answering.read = moments.around(answering.read)
    generation.read = moments.around(generation.read)
    results.write_atomically = moments.around(results.write_atomically)


def run_to_its_end(model, out, data, moments, count):
    watch(moments)
    ask(model, out, data=data, batch=2)
    count.value = moments.seen


def finished(process):
    process.join(1800)
    return process.exitcode


def test_killed_at_any_moment_a_run_goes_on_to_the_same_results(model, data, tmp_path):
    ask(model, tmp_path / "undisturbed", data=data, batch=2)
    expected = content(tmp_path / "undisturbed")
    count = multiprocessing.Value("i", 0)
    began = time.monotonic()
    counted = start(target=run_to_its_end, args=(model, tmp_path / "all", data, Moments(), count))
    counted.start()
    assert finished(counted) == 0
    seconds = time.monotonic() - began
    assert content(tmp_path / "all") == expected
    generator = random.Random(0)
    places = generator.sample(range(count.value), MOMENTS - 5)
    cut = []
    for number, place in enumerate([*places, *[None] * 5]):
        out = tmp_path / str(number)
        process = start(target=run_to_its_end, args=(model, out, data, Moments(place), count))
        began = time.monotonic()
        process.start()
        if place is None:
            process.join(generator.uniform(0.2, 0.9) * seconds)
            process.kill()
        cut.append(finished(process) == -signal.SIGKILL)
        if not cut[-1]:  # it was measured while the machine was busier
            seconds = min(seconds, time.monotonic() - began)
        again = ask(model, out, data=data, batch=2)
        assert content(out) == expected, f"moment {place}"
        assert again["suites"].keys() == expected.keys()
    assert sum(cut[:-5]) == MOMENTS - 5
    assert any(cut[-5:])


def test_two_processes_that_save_into_one_folder_lose_no_suite(tmp_path):
    def save_all(number):
        for suite in range(20):
            results.save(tmp_path, {"model": {}}, f"{number}-{suite}", {})

    processes = [start(target=save_all, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        assert finished(process) == 0
    assert len(results.load(tmp_path)["suites"]) == 40


def test_what_was_answered_is_not_asked_again(model, data, whole, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    (out / results.FILE).unlink()
    monkeypatch.setattr(answering, "read", None)  # any pass through the model would fail
    ask(model, out, data=data)
    assert content(out) == content(whole)


@pytest.mark.slow
def test_the_command_itself_killed_on_its_way(model, data, tmp_path):
    out = tmp_path / "out"
    words = [sys.executable, "-m", "losia_cli", "eval", model, "--data", data, "--out", out]
    for name in ("arc-e", "gsm8k-cot", "mmlu-gen"):
        words += ["--suite", name]
    process = subprocess.Popen(
        [*map(str, words), "--batch", "1"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    while stored(out) < 7:
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    names = ["arc-e", "gsm8k-cot", "mmlu-gen"]
    kept = stored(out)
    ask(model, out, names, data=data)
    assert kept < stored(out)
    ask(model, tmp_path / "whole", names, data=data)
    assert content(out, names) == content(tmp_path / "whole", names)


def stored(out):
    """How many answers a results folder holds."""
    path = out / store.FILE
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(path, timeout=10) as database:
            return database.execute("SELECT count(*) FROM responses").fetchone()[0]
    except sqlite3.OperationalError:  # the table is not there yet
        return 0


# ------------------------------------------------------------------------- never another's answers


def copy_of(model, folder):
    shutil.copytree(model, folder)
    return folder


def nudged(model, folder):
    """The model with one weight another."""
    weights = load_file(copy_of(model, folder) / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] += 0.5
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def with_a_word_less(model, folder):
    """The model with another tokenizer."""
    path = copy_of(model, folder) / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["merges"].pop()
    path.write_text(json.dumps(tokenizer))
    return folder


def with_another_end(model, folder):
    """The model with another token that ends a response."""
    path = copy_of(model, folder) / "generation_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "eos_token_id": [2, 77]}))
    return folder


@pytest.mark.parametrize("change", [nudged, with_a_word_less, with_another_end])
def test_a_second_model_never_meets_the_answers_of_the_first(model, data, whole, tmp_path, change):
    other = change(model, tmp_path / "other")
    taken = tmp_path / "taken"
    shutil.copytree(whole, taken)
    before = (taken / results.FILE).read_bytes()
    with pytest.raises(UserError) as caught:
        ask(other, taken, data=data)
    assert str(model) in str(caught.value)  # whose results these are
    assert str(taken) in str(caught.value)
    assert "--out" in str(caught.value)
    assert (taken / results.FILE).read_bytes() == before
    (taken / results.FILE).unlink()  # the answers alone are there
    held = stored(taken)
    ask(other, taken, data=data)
    ask(other, tmp_path / "alone", data=data)
    assert content(taken) == content(tmp_path / "alone")
    assert stored(taken) == held + stored(tmp_path / "alone")


CHANGES = {
    "the seed": {"seed": 5},
    "no BOS": {"bos": False},
    "the dtype": {"dtype": "bfloat16"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_setting_is_answered_anew(model, data, whole, tmp_path, name):
    shutil.copytree(whole, tmp_path / "out")
    held = stored(tmp_path / "out")
    ask(model, tmp_path / "out", data=data, **CHANGES[name])
    ask(model, tmp_path / "alone", data=data, **CHANGES[name])
    assert content(tmp_path / "out") == content(tmp_path / "alone")
    assert stored(tmp_path / "out") == held + stored(tmp_path / "alone")


def test_a_changed_temperature_is_answered_anew_where_it_matters(model, data, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "out")
    held = stored(tmp_path / "out")
    ask(model, tmp_path / "out", data=data, temperature=0.7)
    assert stored(tmp_path / "out") == held + 3  # the drawn responses
    texts = [
        [line["responses"] for line in read(out / "samples/sampled.jsonl")]
        for out in (whole, tmp_path / "out")
    ]
    assert texts[0] != texts[1]


def test_a_changed_prompt_is_answered_anew_and_no_other(model, data, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "out")
    shutil.copytree(data, tmp_path / "data")
    rows = read(data / "gsm8k/test.jsonl")
    rows[2]["question"] += " Think well."
    write(tmp_path / "data", "gsm8k/test", rows)
    held = stored(tmp_path / "out")
    ask(model, tmp_path / "out", data=tmp_path / "data")
    assert stored(tmp_path / "out") == held + 2  # of both suites that ask it
    ask(model, tmp_path / "alone", data=tmp_path / "data")
    assert content(tmp_path / "out") == content(tmp_path / "alone")


def test_another_version_of_the_code_answers_anew(model, data, whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "out")
    held = stored(tmp_path / "out")
    monkeypatch.setattr(run, "_code", lambda: "of another version")
    ask(model, tmp_path / "out", data=data)
    assert stored(tmp_path / "out") == 2 * held


# ------------------------------------------------------------------------- side by side


@pytest.mark.parametrize("limits", [["2", None], [None, "2"], ["2", "50%"]])
def test_a_limited_run_beside_a_full_one(model, data, whole, tmp_path, limits):
    for limit in limits:
        ask(model, tmp_path / "both", data=data, limit=limit)
    ask(model, tmp_path / "last", data=data, limit=limits[-1])
    assert content(tmp_path / "both") == content(tmp_path / "last")
    partial = {suite["partial"] for suite in results.load(tmp_path / "both")["suites"].values()}
    assert partial == {limits[-1] is not None}


def test_other_suites_are_kept(model, data, whole, tmp_path):
    for name in ASKED:
        ask(model, tmp_path, [name], data=data)
    assert content(tmp_path) == content(whole)


@pytest.mark.parametrize("shares", [[ASKED, ASKED], [ASKED[:1], ASKED[1:]]])
def test_two_processes_on_one_store_at_once(model, data, whole, tmp_path, shares):
    both = [start(target=ask, args=(model, tmp_path, names), kwargs={"data": data})
            for names in shares]  # fmt: skip
    for process in both:
        process.start()
    assert [finished(process) for process in both] == [0, 0]
    assert content(tmp_path) == content(whole)
