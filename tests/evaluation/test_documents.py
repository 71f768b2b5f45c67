"""Local documents: every format gives the same rows, and every fault one sentence."""

import hashlib
import json
import os
import subprocess
import sys

import datasets
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from losia_cli.data.sources import SOURCES
from losia_cli.errors import UserError
from losia_cli.evaluation.documents import Documents

GSM8K = ("openai/gsm8k", "main")
ROWS = [
    {"question": "What is 2+2?", "answer": "It is <<2+2=4>>4.\n#### 4"},
    {"question": "Café: “½\u2028of” 8?\r\n", "answer": "\t#### 4"},
    {"question": "", "answer": "#### -1,234"},
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_json(path, rows):
    path.write_text(json.dumps(rows, indent=2))


def write_parquet(path, rows):
    parquet.write_table(pa.Table.from_pylist(rows), path)


def write_arrow(path, rows):
    table = pa.Table.from_pylist(rows)
    with ipc.new_stream(path, table.schema) as file:
        file.write_table(table)


def write_arrow_file(path, rows):
    table = pa.Table.from_pylist(rows)
    with ipc.new_file(path, table.schema) as file:
        file.write_table(table)


FORMATS = {
    "jsonl": write_jsonl,
    "json": write_json,
    "parquet": write_parquet,
    "arrow": write_arrow,
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "gsm8k").mkdir()
    return tmp_path


def load(folder, split="test", dataset=GSM8K):
    return Documents(folder).load(*dataset)[split]


def fault(folder, *said, **given):
    """The one sentence about a folder, which names the file and says all of that."""
    with pytest.raises(UserError) as caught:
        load(folder, **given)
    text = str(caught.value)
    assert "\n" not in text
    for words in (str(folder / "gsm8k"), *said):
        assert words in text, text


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_rows(folder, kind):
    path = folder / f"gsm8k/test.{kind}"
    FORMATS[kind](path, ROWS)
    documents = Documents(folder)
    assert documents.load(*GSM8K)["test"].to_list() == ROWS
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert documents.used == {"local files": {f"gsm8k/test.{kind}": digest}}


def test_arrow_may_be_a_file_or_a_stream(folder):
    write_arrow_file(folder / "gsm8k/test.arrow", ROWS)
    assert load(folder).to_list() == ROWS


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.lists(
        st.fixed_dictionaries({
            "question": st.text(), "choices": st.lists(st.text(), min_size=4, max_size=4),
            "answer": st.integers(0, 3),
        }),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_any_rows_are_the_same_in_every_format(tmp_path, rows):
    for kind, write in FORMATS.items():
        part = tmp_path / kind / "mmlu/astronomy"
        part.mkdir(parents=True, exist_ok=True)
        write(part / f"test.{kind}", rows)
        assert load(tmp_path / kind, dataset=("cais/mmlu", "astronomy")).to_list() == rows


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_was_changed_is_read_anew(folder, kind):
    path = folder / f"gsm8k/test.{kind}"
    for rows in (ROWS, ROWS[::-1]):
        FORMATS[kind](path, rows)
        os.utime(path, (1, 1))  # an equal date and size must not be taken for an equal file
        assert load(folder).to_list() == rows


def test_lines_may_end_as_windows_ends_them_and_be_blank(folder):
    path = folder / "gsm8k/test.jsonl"
    lines = [json.dumps(row) for row in ROWS]
    path.write_bytes(("\ufeff" + "\r\n".join([*lines, "", "  "])).encode())
    assert load(folder).to_list() == ROWS


def test_columns_that_no_task_reads_do_no_harm(folder):
    write_jsonl(folder / "gsm8k/test.jsonl", [{**row, "note": None} for row in ROWS])
    assert [row["answer"] for row in load(folder)] == [row["answer"] for row in ROWS]


def test_a_missing_file_is_named_with_the_endings_it_may_have(folder):
    fault(folder, "test", ".jsonl", ".json", ".parquet", ".arrow", "put a file there")
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        Documents(folder / "nowhere")


@pytest.mark.parametrize("kind", ["jsonl", "json"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file(folder, kind, content):
    (folder / f"gsm8k/test.{kind}").write_text(content)
    fault(folder, f"test.{kind}", "no rows")


def test_files_of_no_rows(folder):
    (folder / "gsm8k/test.json").write_text("[]")
    fault(folder, "test.json", "no rows")
    empty = pa.table({"question": pa.array([], pa.string()), "answer": pa.array([], pa.string())})
    parquet.write_table(empty, folder / "gsm8k/train.parquet")
    fault(folder, "train.parquet", "no rows", split="train")
    (folder / "gsm8k/validation.parquet").touch()
    fault(folder, "validation.parquet", split="validation")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_missing_column_is_named_beside_those_that_are_there(folder, kind):
    rows = [{"question": row["question"], "solution": row["answer"]} for row in ROWS]
    FORMATS[kind](folder / f"gsm8k/test.{kind}", rows)
    fault(folder, f"test.{kind}", "answer", "question, solution")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("hole", [{"question": "And?", "answer": None}, {"question": "And?"}])
def test_a_row_without_a_value_is_named(folder, kind, hole):
    FORMATS[kind](folder / f"gsm8k/test.{kind}", [*ROWS, hole])
    fault(folder, f"test.{kind}", "answer", "row 4")


BROKEN = {
    "a line that is cut": ('{"question": "What", "ans', "line 2"),
    "a line that is a number": ("5", "row 2 is 5"),
    "a line that is a list": ('["question", "answer"]', "row 2 is ["),
    "a value of another kind": (
        '{"question": ["What?"], "answer": "4"}',
        "values of several kinds",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line(folder, name):
    line, said = BROKEN[name]
    (folder / "gsm8k/test.jsonl").write_text(f"{json.dumps(ROWS[0])}\n{line}\n")
    fault(folder, "test.jsonl", said)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("content", [b"\xff\xfe\x00bytes", b"[1, 2]", b"[{]", b'["a"]', b"{}"])
def test_what_is_no_table_at_all(folder, kind, content):
    (folder / f"gsm8k/test.{kind}").write_bytes(content)
    fault(folder, f"test.{kind}")


def test_a_split_that_nothing_reads_need_not_be_there(folder):
    spared = Documents(folder).load(*GSM8K, spare="train")["train"]
    assert (len(spared), spared.column_names) == (0, ["question", "answer"])
    with pytest.raises(UserError, match="train"):
        Documents(folder).load(*GSM8K, spare="validation")["train"]


def test_a_subject_is_a_folder_and_an_unknown_dataset_the_last_part_of_its_name(tmp_path):
    documents = Documents(tmp_path)
    assert documents.folder("cais/mmlu", "astronomy") == tmp_path / "mmlu/astronomy"
    assert documents.folder("some/where", None) == tmp_path / "where"
    assert not documents.has("cais/mmlu", "astronomy")
    (tmp_path / "mmlu/astronomy").mkdir(parents=True)
    assert documents.has("cais/mmlu", "astronomy")
    assert Documents(None).has("cais/mmlu", "astronomy")


def test_every_dataset_is_pinned_to_a_commit():
    assert all(len(source.revision) == 40 for source in SOURCES.values())
    asked = {}

    def load_dataset(path, name=None, **options):
        asked[path, name] = options["revision"]
        return {}

    plain, datasets.load_dataset = datasets.load_dataset, load_dataset
    try:
        documents = Documents(None)
        for path, name in SOURCES:
            documents.load(path, name or "astronomy")
    finally:
        datasets.load_dataset = plain
    assert sorted(asked.values()) == sorted(source.revision for source in SOURCES.values())
    assert {used["revision"] for used in documents.used.values()} == set(asked.values())


def test_a_hub_out_of_reach_names_the_dataset_and_the_option(tmp_path):
    code = """
from losia_cli.errors import UserError
from losia_cli.data.sources import SOURCES
from losia_cli.evaluation.documents import Documents
for path, name in [*SOURCES, ("some/where", None)]:
    try:
        Documents(None).load(path, name or "astronomy")
    except UserError as error:
        print(error)
"""
    away = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **away}, capture_output=True, text=True
    )
    said = found.stdout.splitlines()
    assert len(said) == len(SOURCES) + 1, found.stderr
    for line, (path, _) in zip(said, [*SOURCES, ("some/where", None)], strict=True):
        assert path in line
        assert "--data" in line
