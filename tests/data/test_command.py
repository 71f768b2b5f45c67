"""`losia data` as it is typed, and where its rows come from: this machine, or a hub."""

import io
import json
import os
import shlex
import subprocess
import sys

import pyarrow as pa
import pytest
from huggingface_hub import constants
from pyarrow import parquet
from rich.console import Console
from typer.testing import CliRunner

from losia_cli import recipes
from losia_cli.cli import app
from losia_cli.data.check import dataset_faults
from losia_cli.data.training_sets import SETS
from losia_cli.errors import UserError
from losia_cli.recipes.needs import needs
from losia_cli.training.command import run
from tests.data.originals import ROWS
from tests.data.served import Hub
from tests.data.test_prepare import copy, made, numbered
from tests.data.test_templates import model  # noqa: F401

BOOLQ = SETS["boolq"]


def losia(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


@pytest.fixture
def boolq(tmp_path):
    return copy(tmp_path / "boolq.jsonl", [ROWS["boolq"][0]] * 5)


def test_prepare_list_and_show(tmp_path, boolq, model):  # noqa: F811
    where = ("--output", tmp_path / "data")
    assert "5 of 5 rows" in losia("data", "prepare", "boolq", "--from", boolq, *where)
    assert "already in" in losia("data", "prepare", "boolq", "--from", boolq, *where)
    listed = {line.split()[0]: line for line in losia("data", "list", *where).splitlines()}
    assert set(SETS) <= set(listed)
    assert listed["boolq"].rstrip().endswith("5 rows")
    assert "google/boolq" in listed["boolq"]
    said = losia("data", "show", "boolq", "--model", model, "--rows", 3, *where)
    assert said.count("⟦") - said.count("supervised: ⟦") == 3
    assert "llama2-7b-boolq" in said
    text = "It is a rock.\nQuestion: is it a star?\nAnswer:\nno\n"
    assert f"5 samples of {len(text) + 2} tokens on average" in said  # a byte each, BOS and EOS
    assert "of all tokens in random batches of 16" in said


def test_what_cannot_be_shown(tmp_path, boolq):
    where = ("--output", tmp_path / "data")
    with pytest.raises(UserError, match=r"boolq is not in .*: make it with .losia data prepare"):
        losia("data", "show", "boolq", *where)
    losia("data", "prepare", "boolq", "--from", boolq, *where)
    (tmp_path / "data/boolq.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="not as it was prepared"):
        losia("data", "show", "boolq", *where)


def test_a_set_is_made_anew_by_the_command_that_is_named(tmp_path):
    source = copy(tmp_path / "a copy.jsonl", numbered(40))
    folder = tmp_path / "my data"
    options = ("--from", source, "--rows", 9, "--seed", 7, "--output", folder)
    losia("data", "prepare", "metamathqa", *options)
    path = folder / "metamathqa.jsonl"
    before = path.read_bytes()
    path.unlink()
    (fault,) = dataset_faults({"dataset": "metamathqa", "dataset_dir": str(folder)})
    _, *named = shlex.split(fault.split("`")[1])
    losia(*named)
    assert path.read_bytes() == before


def test_a_copy_is_of_one_set(boolq):
    for names in ((), ("boolq", "piqa")):
        with pytest.raises(UserError, match="--from is a copy of one set"):
            losia("data", "prepare", *names, "--from", boolq)


def test_drawing_by_the_command(tmp_path):
    source = copy(tmp_path / "copy.jsonl", numbered(50))
    asked = ("data", "prepare", "metamathqa", "--from", source, "--output", tmp_path / "data")
    assert "20 of 50 rows" in losia(*asked, "--rows", 20, "--seed", 3)
    made(tmp_path / "other", "metamathqa", source, rows=20, seed=3)
    one, other = (tmp_path / folder / "metamathqa.jsonl" for folder in ("data", "other"))
    assert one.read_bytes() == other.read_bytes()


# --- the hub


def with_hub(folder, url, *arguments, **environment):
    """The command in a process of its own, since the hub's address is read when it starts."""
    environment = {"HF_ENDPOINT": url, "HF_HOME": str(folder / "hub's cache"), **environment}
    return subprocess.run(
        [sys.executable, "-m", "losia_cli", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_the_pinned_revision_is_downloaded_resumed_and_kept(tmp_path):
    rows = [ROWS["boolq"][0] | {"passage": os.urandom(30_000).hex()} for _ in range(300)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    files = {"data/train-00000-of-00001.parquet": (tmp_path / "rows.parquet").read_bytes()}
    hub = Hub("google/boolq", BOOLQ.revision, files, breaks=1)
    with hub.running():
        done = with_hub(tmp_path, hub.url, "data", "prepare", "boolq")
    assert done.returncode == 0, done.stderr
    assert "300 of 300 rows of google/boolq" in done.stdout
    first, second = hub.ranges
    assert first is None
    assert int(second.removeprefix("bytes=").removesuffix("-")) > 0
    texts = (tmp_path / "data/boolq.jsonl").read_text().splitlines()
    assert [json.loads(text)["output"].split("\n")[0] for text in texts] == [
        row["passage"] for row in rows
    ]
    again = with_hub(tmp_path, hub.url, "data", "prepare", "boolq", "--again", HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    record = json.loads((tmp_path / "data/losia_data.json").read_text())["boolq"]
    assert record["source"]["revision"] == BOOLQ.revision


@pytest.mark.parametrize("name", ["boolq", "piqa"])
def test_a_hub_that_cannot_give_a_set_is_one_sentence(tmp_path, name):
    hub = Hub("google/boolq", "0" * 40, {})  # neither the revision nor the other set
    with hub.running():
        done = with_hub(tmp_path, hub.url, "data", "prepare", name)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert f"could not be had from {hub.url}" in line
    assert f"losia data prepare {name} --from FILE" in line
    assert not list((tmp_path / "data").glob("*.json*"))


def test_training_without_the_hub_names_the_way_round(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    recipe = recipes.load("llama2-7b-boolq", None, ["bf16=false", "use_cpu=true"])
    console = Console(file=io.StringIO(), width=1000)
    with pytest.raises(UserError, match="losia data prepare boolq --from FILE"):
        run(recipe, [], console)
    assert "boolq is not in data yet: preparing it" in console.file.getvalue()
    needed = [need for need in needs(recipe.values) if "google/boolq" in need.what]
    assert [need.missing for need in needed] == [False]
    assert "will be prepared" in needed[0].where


@pytest.mark.parametrize(
    ("entry", "where", "missing"),
    [
        ({"file_name": "here.json"}, "here.json", False),
        ({"file_name": "lost.json"}, "lost.json", True),
        ({"file_name": None}, "no file_name", True),
        (7, "must be an object", True),
        ({"hf_hub_url": "some/where", "file_name": "lost.json"}, "the Hugging Face hub", False),
        ({"cloud_file_name": "s3://somewhere"}, "not in a local file", False),
        (None, "there is no data set rows", True),
    ],
)
def test_where_data_is_needed_from_is_where_it_is_looked_up(tmp_path, entry, where, missing):
    (tmp_path / "here.json").write_text("[]")
    entries = {} if entry is None else {"rows": entry}
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries))
    (found,) = needs({"dataset": "rows", "dataset_dir": str(tmp_path)})
    assert where in found.where
    assert found.missing is missing
