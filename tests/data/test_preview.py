import io
import random
import time
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from rich.console import Console
from transformers import AutoTokenizer, DataCollatorForLanguageModeling, PreTrainedTokenizerBase

from losia_cli.data.check import dropped_rows
from losia_cli.data.preview import Lengths, dropped, lengths, preview, sample_warnings
from tests.llamafactory_data import byte_tokenizer, process, write

SHARED = Path(__file__).parents[3] / "shared" / "models" / "llama2_tokenizer"
ROWS = [
    {"instruction": "What is 2+2?", "input": "", "output": "It is é 4."},
    {"instruction": "What is 3+3?", "input": "", "output": "It is 6."},
]
PAIR = {"prompt": "What is 2+2?", "chosen": "It is 4.", "rejected": "It is 5."}
PAIRS = {"ranking": True, "columns": {name: name for name in PAIR}}
KTO = {"columns": {"prompt": "prompt", "response": "answer", "kto_tag": "good"}}
TEXT = {"columns": {"prompt": "text"}}
BLOCKS = {"packing": False}


def shown(sample: dict[str, Any], tokenizer: PreTrainedTokenizerBase, stage: str = "sft") -> str:
    console = Console(file=io.StringIO(), width=300)
    console.print(preview(sample, tokenizer, stage))
    return console.file.getvalue()


@pytest.fixture(params=["bytes", pytest.param("llama2", marks=pytest.mark.shared)])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    if request.param == "bytes":
        return byte_tokenizer()
    if not SHARED.is_dir():
        pytest.skip(f"no real tokenizer in {SHARED}")
    return AutoTokenizer.from_pretrained(SHARED)


def test_the_supervised_part_is_marked_without_colour(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    sample = process(write(tmp_path, ROWS), tokenizer, template="llama2")[0]
    said = shown(sample, tokenizer)
    assert "<s>[INST] What is 2+2? [/INST]⟦It is é 4.</s>⟧\n" in said
    targets = sum(label != -100 for label in sample["labels"])
    assert f"{len(sample['input_ids'])} tokens, {targets} of them supervised" in said
    assert "  begins with BOS (<s>)\n" in said
    assert "the last supervised token is EOS (</s>)" in said


def test_what_follows_eos_is_shown(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    said = shown(process(write(tmp_path, ROWS), tokenizer, template="default")[0], tokenizer)
    assert "Human: What is 2+2?</s>\nAssistant:⟦It is é 4.</s>\n⟧" in said
    assert "does not begin with BOS (<s>)" in said
    assert "EOS (</s>) is supervised; the last supervised token is '\\n'" in said


def test_the_masked_part_is_dim_in_a_terminal(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    sample = process(write(tmp_path, ROWS), tokenizer, template="llama2")[0]
    console = Console(force_terminal=True, color_system="standard", width=300)
    pieces = list(console.render(preview(sample, tokenizer, "sft")))
    dim = {piece.text for piece in pieces if piece.style is not None and piece.style.dim}
    assert dim == {"<s>[INST] What is 2+2? [/INST]"}


def test_every_answer_of_a_conversation_is_marked(tmp_path: Path) -> None:
    turns = [("human", "One?"), ("gpt", "1"), ("human", "Two?"), ("gpt", "2")]
    row = {"conversations": [{"from": who, "value": text} for who, text in turns]}
    tokenizer = byte_tokenizer()
    folder = write(tmp_path, [row], {"formatting": "sharegpt"})
    said = shown(process(folder, tokenizer, template="llama2")[0], tokenizer)
    assert "<s>[INST] One? [/INST]⟦1</s>⟧<s>[INST] Two? [/INST]⟦2</s>⟧" in said


def test_markup_in_the_data_is_shown_as_it_is(tmp_path: Path) -> None:
    row = {"instruction": "[bold]x[/bold] :smile:", "input": "", "output": "[/red]"}
    tokenizer = byte_tokenizer()
    said = shown(process(write(tmp_path, [row]), tokenizer)[0], tokenizer)
    assert "[bold]x[/bold] :smile:" in said
    assert "⟦[/red]</s>" in said


def test_the_middle_of_a_long_text_is_left_out(tmp_path: Path) -> None:
    row = {"instruction": "begin" + "x" * 5000 + "end?", "input": "", "output": "Yes."}
    tokenizer = byte_tokenizer()
    said = shown(process(write(tmp_path, [row]), tokenizer, cutoff_len=8000)[0], tokenizer)
    assert len(said) < 2500
    assert all(words in said for words in ("begin", "characters ...", "end?", "⟦Yes."))


def test_both_answers_of_a_pair_are_shown(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    folder = write(tmp_path, [PAIR], PAIRS)
    said = shown(process(folder, tokenizer, "dpo", template="llama2")[0], tokenizer, "dpo")
    chosen, rejected = said.index("chosen"), said.index("rejected")
    assert chosen < said.index("[/INST]⟦It is 4.</s>⟧") < rejected
    assert rejected < said.index("[/INST]⟦It is 5.</s>⟧")


def test_a_kto_answer_is_shown_with_its_tag(tmp_path: Path) -> None:
    rows = [{"prompt": "What?", "answer": str(good), "good": good} for good in (True, False)]
    tokenizer = byte_tokenizer()
    good, bad = process(write(tmp_path, rows, KTO), tokenizer, "kto")
    assert "first sample, wanted" in shown(good, tokenizer, "kto")
    said = shown(bad, tokenizer, "kto")
    assert "first sample, unwanted" in said
    assert "⟦False</s>" in said


@pytest.mark.parametrize("pad", ["<pad>", "</s>"])
def test_documents_are_marked_as_the_collator_labels_them(tmp_path: Path, pad: str) -> None:
    tokenizer = byte_tokenizer(pad_token=pad)
    folder = write(tmp_path, [{"text": "Once upon."}], TEXT)
    documents = process(folder, tokenizer, "pt", **BLOCKS)
    labels = DataCollatorForLanguageModeling(tokenizer, mlm=False)(list(documents))["labels"][0]
    learnt = tokenizer.decode([label for label in labels.tolist() if label != -100])
    assert f"⟦{learnt}⟧" in shown(documents[0], tokenizer, "pt")

    warnings = sample_warnings(documents, tokenizer, "pt")
    if pad == "<pad>":
        assert warnings == []
    else:
        (warning,) = warnings
        assert "the model will not learn to stop" in warning
        assert "another pad token" in warning


@pytest.mark.parametrize("template", ["llama2", "default"])
def test_sound_samples_are_not_warned_about(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    samples = process(write(tmp_path, ROWS), tokenizer, template=template)
    assert sample_warnings(samples, tokenizer, "sft") == []


@pytest.mark.parametrize("answer", ["", "  \n"])
def test_an_empty_answer_teaches_to_say_nothing(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, answer: str
) -> None:
    rows = [ROWS[0], ROWS[0] | {"output": answer}]
    samples = process(write(tmp_path, rows), tokenizer, template="default")
    (warning,) = sample_warnings(samples, tokenizer, "sft")
    assert warning == "1 of the first 2 samples have an empty answer, and teach to say nothing"


def test_a_template_without_eos_is_warned_about(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    samples = process(write(tmp_path, ROWS), tokenizer, template="empty")
    (warning,) = sample_warnings(samples, tokenizer, "sft")
    assert "none of the first 2 samples has EOS (</s>) as a supervised token" in warning
    assert "template" in warning


def test_samples_that_are_all_prompt_are_warned_about(tmp_path: Path) -> None:
    long = ROWS[0] | {"instruction": "x" * 1000, "output": "a" * 20}
    tokenizer = byte_tokenizer()
    samples = process(write(tmp_path, [*ROWS, long, ROWS[0]]), tokenizer, cutoff_len=30)
    blank = [row for row in samples if all(label == -100 for label in row["labels"])]
    assert len(blank) == 1
    (warning,) = sample_warnings(samples, tokenizer, "sft")
    assert warning.startswith("1 of the first 4 samples have no supervised token")
    assert "cutoff_len" in warning
    assert sample_warnings(samples, tokenizer, "sft", limit=2) == []


def test_two_bos_are_shown_and_warned_about(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_bos_token = True  # LLaMA-Factory then writes one itself
    folder = write(tmp_path, [{"text": "<s>Once."}, {"text": "Once."}], TEXT)
    documents = process(folder, tokenizer, "pt", **BLOCKS)
    assert "begins with BOS twice (<s><s>)" in shown(documents[0], tokenizer, "pt")
    (warning,) = sample_warnings(documents, tokenizer, "pt")
    assert warning.startswith("1 of the first 2 samples begin with two BOS")


def test_a_bos_that_only_evaluation_will_have_is_warned_about(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(adds_bos=True)
    folder = write(tmp_path, ROWS)
    (warning,) = sample_warnings(process(folder, tokenizer), tokenizer, "sft")
    assert warning.startswith("2 of the first 2 samples do not begin with BOS (<s>)")
    samples = process(folder, tokenizer, template="llama2")
    assert sample_warnings(samples, tokenizer, "sft") == []


def test_pairs_are_warned_about_once(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(adds_bos=True)
    samples = process(write(tmp_path, [PAIR], PAIRS), tokenizer, "dpo")
    (warning,) = sample_warnings(samples, tokenizer, "dpo")
    assert warning.startswith("1 of the first 1 samples do not begin with BOS")


def test_nothing_is_said_of_no_samples() -> None:
    assert sample_warnings([], byte_tokenizer(), "sft") == []


def test_lengths_are_those_of_the_rows(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    rows = [ROWS[0] | {"output": "x" * count} for count in (1, 5, 200, 40)]
    samples = process(write(tmp_path, rows), tokenizer, cutoff_len=60)
    sizes = [len(row["input_ids"]) for row in samples]
    assert sizes[2] == 60
    measured = lengths(samples, 60)
    assert measured == Lengths(4, sum(sizes), 60, sum(sizes) / 4, sizes.count(60), 60)
    assert lengths(samples.select([1, 0]), 60).tokens == sizes[0] + sizes[1]
    said = str(measured)
    assert "4 samples" in said
    assert f"{sizes.count(60)} fill cutoff_len (60)" in said


def test_a_pair_counts_with_its_longer_answer(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    samples = process(write(tmp_path, [PAIR | {"rejected": "No."}], PAIRS), tokenizer, "dpo")
    chosen, rejected = (len(samples[0][f"{side}_input_ids"]) for side in ("chosen", "rejected"))
    assert chosen > rejected
    assert lengths(samples, chosen) == Lengths(
        1, chosen + rejected, chosen, chosen + rejected, 1, chosen
    )


def test_fifty_thousand_rows_are_measured_quickly() -> None:
    draw = random.Random(0)
    sizes = [draw.randrange(1, 400) for _ in range(50_000)]
    samples = Dataset.from_dict({"input_ids": [[1] * size for size in sizes]}).shuffle(seed=0)
    start = time.process_time()
    measured = lengths(samples, 399)
    assert time.process_time() - start < 4
    assert (measured.rows, measured.tokens) == (50_000, sum(sizes))
    assert (measured.longest, measured.full) == (399, sizes.count(399))


def test_dropped_samples_are_counted(tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[0] | {"output": None}]
    kept = process(write(tmp_path, rows), byte_tokenizer())
    assert dropped(len(rows), len(kept)).startswith("1 of 3 samples are dropped: ")
    assert dropped(2, 2) == "all 2 samples are kept"


def test_the_rows_that_are_dropped_are_named(tmp_path: Path) -> None:
    rows = [ROWS[0], ROWS[0] | {"output": None}, ROWS[1], *[ROWS[1] | {"output": None}] * 4]
    values = {"dataset": "rows", "dataset_dir": str(write(tmp_path, rows))}
    said = dropped(len(rows), 2, dropped_rows(values)).splitlines()
    assert said[0].startswith("5 of 7 samples are dropped")
    assert [line.partition(", row ")[2].split(" ")[0] for line in said[1:]] == ["2", "4", "5"]
    assert len(list(dropped_rows(values | {"max_samples": 4}))) == 2
    assert list(dropped_rows({"dataset": "rows", "dataset_dir": "ONLINE"})) == []
