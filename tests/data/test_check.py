import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import csv, ipc, parquet

from losia_cli.data import rows as files
from losia_cli.data.check import dataset_faults
from tests.llamafactory_data import write

ALPACA = {"instruction": "q", "input": "", "output": "a"}
SHARED = Path(__file__).parents[3] / "shared" / "data"


def faults(folder: Path, dataset: str = "rows", **values: Any) -> list[str]:
    return dataset_faults({"dataset": dataset, "dataset_dir": str(folder)} | values)


def one_fault(folder: Path, *said: str, **values: Any) -> str:
    """The only fault there is, which says all of that."""
    found = faults(folder, **values)
    assert len(found) == 1, found
    for words in said:
        assert words in found[0], found[0]
    return found[0]


def as_written(fault: str) -> dict[str, Any]:
    """The keys that a fault tells to write in dataset_info.json."""
    return json.loads("{" + fault.partition("write for rows: ")[2] + "}")


def test_missing_dataset_info(tmp_path: Path) -> None:
    one_fault(tmp_path, f"{tmp_path}/dataset_info.json", "no such file", "dataset_dir")


def test_broken_dataset_info(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text('{"rows":\n {"file_name" "rows.json"}}')
    one_fault(tmp_path, "dataset_info.json, line 2, column 15 is not valid JSON")
    (tmp_path / "dataset_info.json").write_text("[]")
    one_fault(tmp_path, "must hold an object")


def test_an_unknown_data_set_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, [ALPACA], name="gsm8k_train")
    one_fault(tmp_path, "no data set gsm8k_trian; did you mean gsm8k_train?", dataset="gsm8k_trian")
    one_fault(tmp_path, "no data set else; it has gsm8k_train", dataset="else")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, [ALPACA])
    (tmp_path / "rows.json").unlink()
    one_fault(tmp_path, f"{tmp_path}/rows.json: there is no such file")


def test_several_data_sets_have_all_their_faults_reported(tmp_path: Path) -> None:
    write(tmp_path, [{"question": "q", "answer": "a"}], name="one")
    write(tmp_path, "", name="two")
    write(tmp_path, [ALPACA], name="three")
    found = faults(tmp_path, dataset="one, three", eval_dataset=["two", "four"])
    assert [words in fault for fault, words in zip(found, ("one", "two", "four"), strict=True)]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"colums": {"prompt": "q"}}, "no key colums; did you mean columns?"),
        ({"columns": {"promt": "q"}}, "columns has no key promt; did you mean prompt?"),
        ({"columns": {"instruction": "prompt"}}, "columns has no key instruction; its keys are"),
        ({"columns": "instruction"}, "columns must be an object"),
        ({"columns": {"prompt": 1}}, "columns, prompt must be a name in quotes, not 1"),
        ({"tags": {"role": "role"}}, "tags has no key role; did you mean role_tag?"),
        ({"formatting": "chatml"}, "formatting must be one of alpaca, sharegpt, openai"),
        ({"ranking": "yes"}, "ranking must be true or false, not 'yes'"),
        ({"split": "test"}, "a local file has the split train only"),
        ({"file_name": None}, "no file_name"),
    ],
)
def test_a_faulty_entry_is_named(tmp_path: Path, entry: dict[str, Any], said: str) -> None:
    write(tmp_path, [ALPACA], entry)
    one_fault(tmp_path, f"{tmp_path}/dataset_info.json, rows: ", said)


def test_comments_in_an_entry_are_none_of_our_business(tmp_path: Path) -> None:
    write(tmp_path, [ALPACA], {"description": "words", "file_sha1": "0"})
    assert faults(tmp_path) == []


def test_broken_json_is_placed(tmp_path: Path) -> None:
    good = json.dumps(ALPACA)
    write(tmp_path, f"{good}\n\n{good[:-3]}\n{good}\n{good[:-3]}\n")
    one_fault(tmp_path, "the row on line 3 is not valid JSON", "line 3, column", "one of 2 broken")
    write(tmp_path, f"[\n{good},\n{good}\n{good}]")
    one_fault(tmp_path, "rows.json, line 4, column 1 is not valid JSON")
    write(tmp_path, f"{good}\n[1, 2]\n")
    one_fault(tmp_path, "rows.json, row 2 is [1, 2]; a row must be an object")
    (tmp_path / "rows.json").write_bytes(f"{good}\n".encode() + '{"output": "é"}'.encode("latin-1"))
    one_fault(tmp_path, "rows.json, line 2 is not UTF-8 text")


@pytest.mark.parametrize("stray", ["oops", {"role": ["a"], "content": "hi"}, 7, None])
def test_what_is_no_message_among_messages_is_named(tmp_path: Path, stray: Any) -> None:
    asked = {"role": "user", "content": "hi"}
    write(tmp_path, [{"messages": [asked, stray]}, {"messages": [asked, asked]}])
    found = faults(tmp_path)
    assert found
    assert all("rows.json, row 1" in each for each in found)


def test_a_broken_row_does_not_hide_the_faults_of_the_others(tmp_path: Path) -> None:
    write(tmp_path, '{"question": "q", "answer": "a"}\n{"question": \n')
    broken, missing = faults(tmp_path)
    assert "not valid JSON" in broken
    assert "no column instruction" in missing


def test_a_missing_column_is_named_with_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, [{"question": "q", "answer": "a"}])
    fault = one_fault(
        tmp_path,
        f"{tmp_path}/rows.json, row 1: there is no column instruction and no input and no output",
        "(its columns are question, answer)",
        f"in {tmp_path}/dataset_info.json, write for rows: ",
    )
    assert as_written(fault)["columns"] == {"prompt": "question", "response": "answer"}


def test_rows_without_a_needed_column_are_named(tmp_path: Path) -> None:
    typo = {"instruction": "q", "input": "", "outptu": "a"}
    write(tmp_path, [ALPACA, ALPACA, typo, ALPACA, typo])
    one_fault(
        tmp_path,
        f"{tmp_path}/rows.json, row 3: there is no column output, which other rows have",
        "(its columns are instruction, input, outptu, one of 2 such rows)",
    )
    assert faults(tmp_path, max_samples=2) == []
    write(tmp_path, [ALPACA, {"instruction": "q", "output": "a"}])
    assert faults(tmp_path) == []  # input may be left out


def test_a_misspelt_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(
        tmp_path,
        [{"a_question": "q", "an_answer": "a"}],
        {"columns": {"prompt": "a_qestion", "response": "an_answer"}},
    )
    one_fault(tmp_path, "there is no column a_qestion", "did you mean a_question?")


def test_without_a_resemblance_the_columns_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path, [{"a": "q", "b": "a"}])
    one_fault(tmp_path, "say under columns what each of the rows' columns is for")


CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
USER, HUMAN = {"role": "user", "content": "q"}, {"from": "human", "value": "q"}
GPT = {"from": "gpt", "value": "a"}


@pytest.mark.parametrize(
    ("stage", "row"),
    [
        ("sft", {"messages": CHAT}),
        ("sft", {"dialogue": [HUMAN, GPT]}),
        (
            "sft",
            {
                "conversations": [
                    {"from": "user", "value": "q"},
                    {"from": "assistant", "value": "a"},
                ]
            },
        ),
        ("sft", {"prompt": "q", "completion": "a"}),
        ("sft", {"instruction": "q", "output": "a"}),
        ("sft", {"instruction": "q", "input": "i", "response": "a"}),
        ("pt", {"id": 1, "text": "words"}),
        ("dpo", {"prompt": "q", "chosen": "a", "rejected": "b"}),
        ("rm", {"conversations": [HUMAN], "chosen": GPT, "rejected": GPT}),
        ("kto", {"prompt": "q", "completion": "a", "label": True}),
        ("kto", {"messages": CHAT, "label": False}),
    ],
)
def test_what_a_fault_tells_to_write_mends_it(
    tmp_path: Path, stage: str, row: dict[str, Any]
) -> None:
    write(tmp_path, [row])
    entry = as_written(faults(tmp_path, stage=stage)[-1])
    write(tmp_path, [row], entry)
    assert faults(tmp_path, stage=stage) == []


def test_wrong_kinds_are_shown(tmp_path: Path) -> None:
    write(tmp_path, [ALPACA | {"instruction": None}, ALPACA | {"instruction": 7, "output": ["a"]}])
    several, instruction = faults(tmp_path)
    assert "row 2, column instruction holds a number (7), and must hold text" in instruction
    assert "row 2, column output holds a list, where" in several


def test_a_column_of_several_kinds_is_shown_with_both_rows(tmp_path: Path) -> None:
    write(tmp_path, [ALPACA] * 41 + [ALPACA | {"output": 7}])
    fault = one_fault(tmp_path, "row 42, column output holds a number, where")
    assert "row 1 holds text ('a')" in fault


def test_dropped_rows_are_a_fault_only_if_all_are(tmp_path: Path) -> None:
    unanswered = [ALPACA | {"output": None}, ALPACA | {"output": ""}]
    write(tmp_path, [*unanswered, ALPACA])
    assert faults(tmp_path) == []
    write(tmp_path, unanswered)
    one_fault(tmp_path, "none of its rows (2) can be trained on", "row 1 has no response")


def test_only_the_rows_that_are_trained_on_must_be_usable(tmp_path: Path) -> None:
    write(tmp_path, [ALPACA | {"output": None}] * 3 + [ALPACA])
    one_fault(tmp_path, "none of its rows (3) can be trained on", max_samples=3)
    assert faults(tmp_path, max_samples=4) == []
    write(tmp_path, [ALPACA | {"output": None}] * 3 + [ALPACA], {"num_samples": 2})
    assert faults(tmp_path, max_samples=1) == []


def test_rows_to_generate_for_need_no_response(tmp_path: Path) -> None:
    write(tmp_path, [ALPACA], name="rows")
    write(tmp_path, [ALPACA | {"output": None}], name="questions")
    assert faults(tmp_path, eval_dataset="questions", predict_with_generate=True) == []
    one_fault(tmp_path, "none of its rows", eval_dataset="questions")


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"dataset_dir": "ONLINE"},
        {"dataset_dir": "REMOTE:someone/data"},
        {"dataset": "on_the_hub"},
        {"dataset": None},
    ],
)
def test_what_is_not_here_is_not_checked(tmp_path: Path, elsewhere: dict[str, Any]) -> None:
    (tmp_path / "dataset_info.json").write_text('{"on_the_hub": {"hf_hub_url": "some/where"}}')
    assert dataset_faults({"dataset": "rows", "dataset_dir": str(tmp_path)} | elsewhere) == []


def test_saved_tokens_are_read_instead_of_the_data_set(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    assert faults(tmp_path, tokenized_path=str(tokens)) != []
    (tokens / "dataset_dict.json").write_text("{}")
    assert faults(tmp_path, tokenized_path=str(tokens)) == []


def write_as(folder: Path, suffix: str, rows: list[dict[str, Any]]) -> None:
    table, path = pa.Table.from_pylist(rows), folder / f"rows{suffix}"
    if suffix == ".csv":
        csv.write_csv(table, path)
    elif suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        with ipc.new_stream(path, table.schema) as stream:
            stream.write(table)
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": path.name}}))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow"])
def test_other_types_of_files(tmp_path: Path, suffix: str) -> None:
    write_as(tmp_path, suffix, [ALPACA | {"day": "2026-01-01"}])
    assert faults(tmp_path) == []
    write_as(tmp_path, suffix, [ALPACA, ALPACA | {"output": "42"}])
    assert faults(tmp_path) == []
    write_as(tmp_path, suffix, [ALPACA | {"output": 42}])
    one_fault(tmp_path, f"rows{suffix}, row 1, column output holds a number (42)")
    write_as(tmp_path, suffix, [{"question": "q", "answer": "a"}])
    one_fault(tmp_path, "its columns are question, answer")
    (tmp_path / f"rows{suffix}").write_bytes(b"one,two\n1,2,3\n")
    one_fault(tmp_path, f"rows{suffix} cannot be read as")


def test_a_text_file_is_a_column_of_lines(tmp_path: Path) -> None:
    info = {"rows": {"file_name": "rows.txt", "columns": {"prompt": "text"}}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    (tmp_path / "rows.txt").write_text("one\ntwo\n")
    assert faults(tmp_path, stage="pt") == []
    (tmp_path / "rows.txt").write_text("\n\n")
    one_fault(tmp_path, "none of its rows (2)", stage="pt")


def test_folders_of_files(tmp_path: Path) -> None:
    write(tmp_path, [ALPACA], {"file_name": "parts"})
    parts = tmp_path / "parts"
    parts.mkdir()
    one_fault(tmp_path, f"{parts}: the folder is empty")
    (parts / "a.jsonl").write_text(json.dumps(ALPACA))
    (parts / "b.json").write_text(json.dumps([ALPACA]))
    assert faults(tmp_path) == []
    (parts / "README.md").write_text("words")
    one_fault(tmp_path, "must all be of one type", "move README.md away")
    (parts / "README.md").unlink()
    (parts / "b.json").write_text(json.dumps([ALPACA, ALPACA | {"output": 3}]))
    one_fault(tmp_path, f"{parts}/b.json, row 2, column output")


@pytest.mark.parametrize("late", ["a", "b"])
def test_a_folders_first_file_is_the_one_that_the_loader_lists_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    write(tmp_path, [ALPACA], {"file_name": "parts"})
    parts = tmp_path / "parts"
    parts.mkdir()
    for name in "ab":
        row = ALPACA | ({"extra": "x"} if name == late else {})
        (parts / f"{name}.json").write_text(json.dumps([row]))
    listed = [parts / "b.json", parts / "a.json"]
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(listed))
    assert len(faults(tmp_path)) == (late == "a")
    drawn = files.read(parts, original=True)
    assert drawn is not None
    assert [path.name for _, path in drawn.starts] == ["a.json", "b.json"]


def test_other_endings_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [ALPACA], {"file_name": "rows.yaml"})
    (tmp_path / "rows.yaml").touch()
    one_fault(tmp_path, "rows.yaml: LLaMA-Factory reads files of the types .json, .jsonl")


def test_files_too_large_to_read_twice_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [{"question": "q"}])
    assert faults(tmp_path) != []
    monkeypatch.setattr(files, "LARGE", 4)
    assert faults(tmp_path) == []


def test_fifty_thousand_rows_are_quick_and_need_no_torch(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "q" * 200}, {"from": "gpt", "value": "a" * 300}] * 2
    write(
        tmp_path,
        [{"conversations": turns, "id": n} for n in range(50_000)],
        {"formatting": "sharegpt"},
        "chat",
    )
    write(tmp_path, [ALPACA | {"output": "a" * 500}] * 50_000)
    code = (
        "import sys; from time import process_time as now;"
        "from losia_cli.data.check import dataset_faults; start = now();"
        f"print(dataset_faults({{'dataset': 'chat', 'dataset_dir': {str(tmp_path)!r}}}),"
        f"dataset_faults({{'dataset': 'rows', 'dataset_dir': {str(tmp_path)!r}}}),"
        "'torch' in sys.modules); print(now() - start)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    said, seconds = process.stdout.splitlines()
    assert said == "[] [] False"
    assert float(seconds) < 8  # of the processor's time; 2 as a rule


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data slices in {SHARED}")
@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("alpaca_en_demo", None),
        ("code_alpaca_2k", None),
        ("gsm8k", {"prompt": "question", "response": "answer"}),
        ("mbpp", {"prompt": "text", "response": "code"}),
    ],
)
def test_real_rows(tmp_path: Path, name: str, columns: dict[str, str] | None) -> None:
    rows = (SHARED / name / "train.jsonl").read_text(encoding="utf-8")
    write(tmp_path, rows)
    if columns is None:
        assert faults(tmp_path) == []
        return
    entry = as_written(one_fault(tmp_path, "there is no column instruction"))
    assert entry["columns"] == columns
    write(tmp_path, rows, entry)
    assert faults(tmp_path) == []
    *lines, last = rows.splitlines()
    write(tmp_path, "\n".join([*lines, last[:-9]]), entry)
    one_fault(tmp_path, f"the row on line {len(lines) + 1:,} is not valid JSON")


@pytest.mark.parametrize("part", ["[1]", "*", "?", "a::b", "[", "]", "{a}", "!", "%20", "~", "$x"])
def test_a_path_that_the_datasets_library_reads_otherwise_is_refused(
    tmp_path: Path, part: str
) -> None:
    for number, folder in enumerate((f"x{part}y", "x1y", "x2y")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, [ALPACA | {"output": str(number)}])
    found = faults(tmp_path / f"x{part}y")
    try:
        path = str(tmp_path / f"x{part}y" / "rows.json")
        read = datasets.load_dataset(
            "json", data_files=[path], split="train", cache_dir=str(tmp_path / "cache")
        )
        as_it_is = read["output"][:] == ["0"]
    except (OSError, datasets.exceptions.DatasetsError):
        as_it_is = False
    assert (found == []) is as_it_is
    assert as_it_is or ("for a pattern" in found[0] and str(tmp_path) in found[0])
