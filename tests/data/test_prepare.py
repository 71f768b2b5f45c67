import hashlib
import io
import json
import os
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import ipc, parquet
from rich.console import Console

from losia_cli.data import rows as files
from losia_cli.data.check import dataset_faults
from losia_cli.data.prepare import Request, draw, order, prepare, prepare_missing
from losia_cli.data.training_sets import SETS, find
from losia_cli.errors import UserError
from tests.data.originals import ROWS, UNUSABLE

SHARED = Path(__file__).parents[3] / "shared" / "data"
SLICES = {
    "arc_c": "arc_challenge/train.jsonl",
    "arc_e": "arc_easy/train.jsonl",
    "hellaswag": "hellaswag/validation.jsonl",
    "winogrande": "winogrande/train.jsonl",
    "piqa": "piqa/train.jsonl",
    "siqa": "social_i_qa/train.jsonl",
    "boolq": "boolq/validation_google_boolq_schema.jsonl",
    "alpaca_gpt4": "alpaca_en_demo/train.jsonl",
}


def copy(path, rows):
    """Original rows in a file of the type that the path's ending says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        table = pa.Table.from_pylist(rows)
        with ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    return path


def numbered(count):
    """MetaMathQA's rows, each of which can be told from the others."""
    return [{"query": f"Q{i}", "response": f"R{i}"} for i in range(count)]


def made(folder, name, source, again=False, **changes):
    """Prepare a set, and what is said."""
    console = Console(file=io.StringIO(), width=1000)
    prepare(Request(SETS[name], source, **changes), folder, console, again)
    return console.file.getvalue()


def read(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def questions(folder, name="metamathqa"):
    return [row["instruction"] for row in read(folder, name)]


def record(folder, name):
    return json.loads((folder / "losia_data.json").read_text())[name]


def test_every_set_has_rows_here_and_a_pinned_revision():
    assert set(ROWS) == set(SETS)
    for each in SETS.values():
        assert re.fullmatch("[0-9a-f]{40}", each.revision)
        assert each.rows is None or each.rows < each.published


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".arrow"])
@pytest.mark.parametrize("name", SETS)
def test_a_local_copy_of_every_set_in_every_format(tmp_path, name, suffix):
    row, prompt, answer = ROWS[name]
    said = made(tmp_path / "data", name, copy(tmp_path / f"copy{suffix}", [row, row]))
    found = read(tmp_path / "data", name)
    assert found == [found[0]] * 2
    assert found[0]["output"] in answer  # the template's part around it is test_templates.py's
    assert found[0]["instruction"] in prompt
    assert "2 of 2 rows" in said
    assert dataset_faults({"dataset": name, "dataset_dir": str(tmp_path / "data")}) == []


def test_a_folder_of_files_is_one_copy(tmp_path):
    (tmp_path / "shards").mkdir()
    for number in range(2):
        copy(tmp_path / f"shards/{number}.parquet", numbered(3))
    made(tmp_path / "data", "metamathqa", tmp_path / "shards")
    assert Counter(questions(tmp_path / "data")) == {"Q0": 2, "Q1": 2, "Q2": 2}


def test_the_order_of_a_folder_s_files_is_that_of_their_names(tmp_path, monkeypatch):
    """Which rows are drawn must not depend on how a file system lists them."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for number in range(8):
        copy(folder / f"part-{number}.jsonl", numbered(8)[number : number + 1])
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: sorted(listed(path), reverse=True))
    drawn_from = files.read(folder, original=True).rows
    assert [row["query"] for row in drawn_from] == [f"Q{i}" for i in range(8)]


@pytest.mark.shared
@pytest.mark.parametrize("name", SLICES)
def test_real_rows_can_all_be_used(tmp_path, name):
    source = SHARED / SLICES[name]
    if not source.is_file():
        pytest.skip(f"no {source}")
    rows = source.read_text(encoding="utf-8").splitlines()
    said = made(tmp_path, name, source)
    assert len(read(tmp_path, name)) == len(rows)
    assert "skipped" not in said
    assert record(tmp_path, name)["skipped"] == {}


# --- drawing


@given(st.integers(0, 60), st.integers(0, 2**31), st.integers(0, 2**31))
def test_the_seed_alone_says_which_rows_are_drawn(size, seed, other):
    assert sorted(order(size, seed)) == list(range(size))
    assert order(size, seed) == order(size, seed)
    if size > 30 and seed != other:
        assert order(size, seed) != order(size, other)


def test_every_row_is_as_likely_as_another():
    drawn = Counter(place for seed in range(2000) for place in order(20, seed)[:5])
    expected, deviation = 2000 * 5 / 20, (2000 * 0.25 * 0.75) ** 0.5
    assert all(abs(drawn[place] - expected) < 4.5 * deviation for place in range(20))


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 40), st.integers(0, 99))
def test_as_many_are_drawn_as_are_wanted_and_can_be(usable, count, seed):
    rows = [{"query": f"Q{i}", "response": "R" if good else ""} for i, good in enumerate(usable)]
    places = order(len(rows), seed)
    found = draw(rows, SETS["metamathqa"], count, places)
    good = [f"Q{place}" for place in places if usable[place]]
    assert [text["instruction"] for text in found.texts] == good[:count]
    skipped = [place - 1 for each in found.skipped.values() for place in each]
    assert not any(usable[place] for place in skipped)
    if len(good) < count:
        assert len(skipped) + len(found.texts) == len(rows)


def test_a_draw_is_without_replacement_and_nested(tmp_path):
    source = copy(tmp_path / "copy.jsonl", numbered(200))
    for count in (30, 50):
        made(tmp_path / str(count), "metamathqa", source, rows=count)
    few, many = questions(tmp_path / "30"), questions(tmp_path / "50")
    assert len(set(few)) == 30
    assert len(set(many)) == 50
    assert many[:30] == few
    made(tmp_path / "other", "metamathqa", source, rows=30, seed=43)
    assert questions(tmp_path / "other") != few
    assert few != questions(tmp_path / "50")[20:]


def test_whole_sets_keep_their_order(tmp_path):
    row = ROWS["piqa"][0]
    rows = [row | {"goal": f"goal {i}"} for i in range(30)]
    made(tmp_path, "piqa", copy(tmp_path / "copy.jsonl", rows))
    found = [text["output"].splitlines()[0] for text in read(tmp_path, "piqa")]
    assert found == [f"Question: goal {i}" for i in range(30)]


def test_a_copy_with_fewer_rows_than_the_paper_draws_is_taken_whole(tmp_path):
    source = copy(tmp_path / "copy.jsonl", numbered(7))
    assert "fewer usable rows than the 50,000" in made(tmp_path, "metamathqa", source)
    assert len(set(questions(tmp_path))) == 7
    with pytest.raises(UserError, match="8 rows are wanted, and 7 of 7 can be used"):
        made(tmp_path / "8", "metamathqa", source, rows=8)


@pytest.mark.parametrize(("name", "change", "why"), UNUSABLE)
def test_rows_that_cannot_be_used_are_counted_and_named(tmp_path, name, change, why):
    row = ROWS[name][0]
    source = copy(tmp_path / "copy.jsonl", [row, row | change, row])
    said = made(tmp_path, name, source)
    assert f"skipped: 1 row that {why} (2)" in said
    assert record(tmp_path, name)["skipped"] == {why: {"rows": 1, "such as": [2]}}
    assert len(read(tmp_path, name)) == 2


# --- what is there already


def test_what_is_there_unchanged_is_left_alone(tmp_path):
    source = copy(tmp_path / "copy.jsonl", numbered(40))
    made(tmp_path, "metamathqa", source, rows=10)
    path = tmp_path / "metamathqa.jsonl"
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    assert "already in" in made(tmp_path, "metamathqa", source, rows=10)
    assert path.stat().st_mtime_ns == stamp
    os.utime(path, (1, 1))
    made(tmp_path, "metamathqa", source, rows=10, again=True)
    assert path.stat().st_mtime > 1
    assert path.read_bytes() == before
    for change in ({"rows": 11}, {"rows": 11, "seed": 1}):
        assert "11 of 40 rows" in made(tmp_path, "metamathqa", source, **change)
    copy(source, numbered(41))
    assert "11 of 41 rows" in made(tmp_path, "metamathqa", source, rows=11, seed=1)


def test_the_record_says_what_was_made_of_what(tmp_path):
    source = copy(tmp_path / "copy.jsonl", numbered(40))
    made(tmp_path, "metamathqa", source, rows=10, seed=7)
    found = record(tmp_path, "metamathqa")
    digest = hashlib.sha256((tmp_path / "metamathqa.jsonl").read_bytes()).hexdigest()
    assert found["sha256"] == digest
    of_source = hashlib.sha256(source.read_bytes()).hexdigest()
    assert found["source"] == {"file": str(source), "sha256": of_source}
    assert (found["rows"], found["rows in the source"], found["seed"]) == (10, 40, 7)


def test_other_entries_of_the_folder_are_kept(tmp_path):
    theirs = {"mine": {"file_name": "mine.json", "columns": {"prompt": "é"}}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(theirs))
    for name in ("boolq", "piqa"):
        made(tmp_path, name, copy(tmp_path / "copy.jsonl", [ROWS[name][0]]))
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert list(info) == ["mine", "boolq", "piqa"]
    assert info["mine"] == theirs["mine"]


def test_a_users_set_of_the_same_name_is_not_replaced(tmp_path):
    text = '{"boolq": {"file_name": "mine.json"}}'
    (tmp_path / "dataset_info.json").write_text(text)
    source = copy(tmp_path / "copy.jsonl", [ROWS["boolq"][0]])
    with pytest.raises(UserError, match="not prepared by losia"):
        made(tmp_path, "boolq", source)
    assert (tmp_path / "dataset_info.json").read_text() == text
    assert not (tmp_path / "boolq.jsonl").exists()


def test_an_edited_set_is_refused_by_training_and_made_anew(tmp_path):
    source = copy(tmp_path / "copy.jsonl", [ROWS["boolq"][0]])
    values = {"dataset": "boolq", "dataset_dir": str(tmp_path)}
    made(tmp_path, "boolq", source)
    path = tmp_path / "boolq.jsonl"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"no", b"yes"))
    (fault,) = dataset_faults(values)
    assert "boolq.jsonl is not as it was prepared" in fault
    path.unlink()
    (fault,) = dataset_faults(values)
    assert "is missing" in fault
    made(tmp_path, "boolq", source)
    assert path.read_bytes() == before
    assert dataset_faults(values) == []


def test_training_prepares_only_what_is_not_registered(tmp_path):
    console = Console(file=io.StringIO(), width=1000)
    made(tmp_path, "boolq", copy(tmp_path / "copy.jsonl", [ROWS["boolq"][0]]))
    before = sorted(tmp_path.iterdir())
    for name in ("boolq", "no_set_of_the_paper"):
        prepare_missing({"dataset": name, "dataset_dir": str(tmp_path)}, console)
    prepare_missing({"dataset": "piqa", "dataset_dir": "ONLINE"}, console)
    assert console.file.getvalue() == ""
    assert sorted(tmp_path.iterdir()) == before


# --- mistakes


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"there is no training set bolq; did you mean boolq\?"):
        find("bolq")
    with pytest.raises(UserError, match="there are metamathqa, "):
        find("something_else_altogether")


def refused(tmp_path, source, words, name="boolq"):
    folder = tmp_path / "data"
    with pytest.raises(UserError, match=words):
        made(folder, name, source)
    assert not folder.exists()


def test_missing_columns_are_named(tmp_path):
    rows = [{"question": "q", "label": 1, "passage": "p"}]
    words = "there is no column answer .its columns are question, label, passage.; boolq needs"
    refused(tmp_path, copy(tmp_path / "copy.jsonl", rows), words)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".arrow"])
def test_an_empty_copy(tmp_path, suffix):
    path = tmp_path / f"copy{suffix}"
    if suffix == ".jsonl":
        path.write_text("")
    else:
        copy(path, [ROWS["boolq"][0]])
        table = pa.Table.from_pylist([ROWS["boolq"][0]]).slice(0, 0)
        if suffix == ".parquet":
            parquet.write_table(table, path)
        else:
            with ipc.new_stream(path, table.schema):
                pass
    refused(tmp_path, path, "holds no rows")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".arrow"])
def test_a_damaged_copy(tmp_path, suffix):
    path = copy(tmp_path / f"copy{suffix}", [ROWS["boolq"][0]] * 3)
    path.write_bytes(path.read_bytes()[:-20])
    refused(tmp_path, path, f"copy{suffix}")


def test_files_that_are_not_there_or_of_another_type(tmp_path):
    refused(tmp_path, tmp_path / "none.jsonl", "--from: there is no file")
    (tmp_path / "copy.xlsx").write_text("x")
    refused(tmp_path, tmp_path / "copy.xlsx", "of no type that is read here: .jsonl")


def test_a_copy_without_a_usable_row(tmp_path):
    rows = [ROWS["boolq"][0] | {"passage": ""}]
    refused(tmp_path, copy(tmp_path / "copy.jsonl", rows), "1 row that has no text in passage")


def test_a_folder_that_cannot_be_written_into(tmp_path):
    (tmp_path / "data").write_text("a file")
    source = copy(tmp_path / "copy.jsonl", [ROWS["boolq"][0]])
    with pytest.raises(UserError, match=r"data cannot be written into \(File exists\): .*--output"):
        made(tmp_path / "data", "boolq", source)


@pytest.mark.parametrize("text", ["[]", "{", '{"boolq": {}}'])
def test_a_damaged_record(tmp_path, text):
    (tmp_path / "losia_data.json").write_text(text)
    source = copy(tmp_path / "copy.jsonl", [ROWS["boolq"][0]])
    with pytest.raises(UserError, match=r"losia_data\.json is damaged: remove it"):
        made(tmp_path, "boolq", source)


@pytest.mark.parametrize("name", ["test.jsonl", "validation-00000-of-00001.parquet", "Dev.json"])
def test_a_folder_with_another_split_in_it_is_not_trained_on(tmp_path, name):
    source = tmp_path / "gsm8k"
    source.mkdir()
    (source / "train.jsonl").write_text('{"question": "1 + 1?", "answer": "#### 2"}\n')
    (source / name).write_text("{}")
    request = Request(SETS["gsm8k"], source)
    with pytest.raises(UserError, match=f"holds {name}, which is not to be trained on"):
        prepare(request, tmp_path / "data", Console(quiet=True))
    assert not (tmp_path / "data").exists()
