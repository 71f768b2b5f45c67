"""Preparing again, and rows at the edges."""

from pathlib import Path

import pytest

from losia_cli.data import manifest
from losia_cli.data import prepare as prepared
from losia_cli.data.originals import Unusable
from losia_cli.data.prepare import registered
from losia_cli.data.training_sets import SETS
from losia_cli.errors import UserError
from tests.data.originals import ROWS
from tests.data.test_prepare import copy, made, numbered, record


def test_another_version_makes_a_set_anew(tmp_path, monkeypatch):
    source = copy(tmp_path / "copy.jsonl", numbered(4))
    made(tmp_path, "metamathqa", source)
    monkeypatch.setattr(prepared, "__version__", "another")
    assert "already in" not in made(tmp_path, "metamathqa", source)
    assert record(tmp_path, "metamathqa")["losia"] == "another"


def test_a_set_that_is_no_longer_registered_is_registered_again(tmp_path):
    source = copy(tmp_path / "copy.jsonl", numbered(4))
    made(tmp_path, "metamathqa", source)
    (tmp_path / "dataset_info.json").write_text("{}")
    made(tmp_path, "metamathqa", source)
    assert registered("metamathqa", tmp_path)


def test_the_last_half_of_a_character(tmp_path):
    source = tmp_path / "copy.jsonl"
    source.write_text('{"query": "Q", "response": "a\\udfff"}\n{"query": "Q", "response": "R"}\n')
    assert "half a character" in made(tmp_path / "data", "metamathqa", source)


def test_a_folder_of_the_users_own_is_left(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine").touch()
    with pytest.raises(UserError):
        made(tmp_path / "data", "boolq", tmp_path / "none.jsonl")
    source = copy(tmp_path / "copy.jsonl", [ROWS["boolq"][0] | {"passage": ""}])
    with pytest.raises(UserError):
        made(tmp_path / "data", "boolq", source)
    assert (tmp_path / "data/mine").exists()


def test_a_file_renamed_in_a_folder_is_another_source(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    before = manifest.digest(tmp_path)
    (tmp_path / "b").rename(tmp_path / "c")
    assert manifest.digest(tmp_path) != before


def test_a_folders_digest_is_of_its_names_order(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).write_text(name)
    before, listed = manifest.digest(tmp_path), Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: sorted(listed(path), reverse=True))
    assert manifest.digest(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("piqa", {"label": -1}),
        ("siqa", {"label": "0"}),
        ("winogrande", {"answer": "0"}),
        ("hellaswag", {"label": "-1"}),
        ("hellaswag", {"label": "4"}),
    ],
)
def test_an_answer_that_is_none_of_them(name, change):
    with pytest.raises(Unusable, match="no right answer"):
        SETS[name].convert(ROWS[name][0] | change)


def test_an_input_of_blanks_is_none():
    row = ROWS["alpaca_gpt4"][0] | {"input": "  \n"}
    assert "### Input" not in SETS["alpaca_gpt4"].convert(row)["instruction"]


def test_an_edited_set_that_is_there_is_made_anew(tmp_path):
    source = copy(tmp_path / "copy.jsonl", numbered(4))
    made(tmp_path, "metamathqa", source)
    path = tmp_path / "metamathqa.jsonl"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"R1", b"XX"))
    assert "already in" not in made(tmp_path, "metamathqa", source)
    assert path.read_bytes() == before
