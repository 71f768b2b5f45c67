"""What is called a fault is what LLaMA-Factory's own processing fails at, and nothing else.

One exception, on purpose: a needed column that only some rows have (see test_check).
"""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from losia_cli.data import info
from losia_cli.data.check import dataset_faults
from losia_cli.data.conversion import defect
from tests.llamafactory_data import byte_tokenizer, process, write

A = {"instruction": "q", "input": "", "output": "a"}
HISTORY = {"columns": {"prompt": "instruction", "response": "output", "history": "past"}}
SYSTEM = {"columns": {"prompt": "instruction", "response": "output", "system": "rule"}}
TEXT = {"columns": {"prompt": "text"}}
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
PAIRS = {"ranking": True, "columns": {name: name for name in PAIR}}
KTO = {"columns": {"prompt": "prompt", "response": "answer", "kto_tag": "good"}}
K = {"prompt": "q", "answer": "a", "good": True}
CHAT = {"formatting": "sharegpt"}
CHAT_KTO = CHAT | {"columns": {"messages": "conversations", "kto_tag": "good"}}
CHAT_PAIRS = CHAT | {
    "ranking": True,
    "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
}
OPENAI = {
    "formatting": "openai",
    "columns": {"messages": "messages"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "observation_tag": "tool",
        "function_tag": "function",
        "system_tag": "system",
    },
}


def said(speaker: str | None, text: str | None = "words") -> dict[str, Any]:
    return {"from": speaker, "value": text}


def chat(*speakers: str, **more: Any) -> dict[str, Any]:
    return {"conversations": [said(speaker) for speaker in speakers]} | more


def messages(*speakers: str) -> dict[str, Any]:
    return {"messages": [{"role": speaker, "content": "words"} for speaker in speakers]}


H, G = "human", "gpt"
LONG = [{"a": "x" * 1000, "instruction": "q", "output": "a", "input": None}] * 11_000
BOTH = {"chosen": said(G), "rejected": said(G)}

CASES: dict[str, tuple[str, dict[str, Any] | None, Any]] = {
    "alpaca": ("sft", None, [A, A]),
    "no input": ("sft", None, [{"instruction": "q", "output": "a"}]),
    "a null response": ("sft", None, [A, A | {"output": None}]),
    "no prompt in one row": ("sft", None, [A, {"input": "", "output": "a"}]),
    "null responses": ("sft", None, [A | {"output": None}] * 2),
    "null prompts": ("sft", None, [A | {"instruction": None}]),
    "prompts of numbers": ("sft", None, [A | {"instruction": 1}]),
    "responses of numbers": ("sft", None, [A | {"output": 1}]),
    "responses of lists": ("sft", None, [A | {"output": ["a"]}]),
    "text and numbers": ("sft", None, [A, A | {"output": 1}]),
    "clash in an unused column": ("sft", None, [A | {"x": {"y": 1}}, A | {"x": {"y": "z"}}]),
    "whole and broken numbers": ("sft", None, [A | {"x": 1}, A | {"x": 1.5}]),
    "history": ("sft", HISTORY, [A | {"past": [["x", "y"]]}, A | {"past": []}]),
    "history of three": ("sft", HISTORY, [A | {"past": [["x", "y", "z"]]}]),
    "history with null": ("sft", HISTORY, [A | {"past": [["x", None]]}]),
    "no response column": ("sft", {"columns": {"prompt": "instruction"}}, [A]),
    "no prompt column": ("sft", {"columns": {"response": "output"}}, [A]),
    "system of numbers": ("sft", SYSTEM, [A | {"rule": 3}]),
    "system of nulls": ("sft", SYSTEM, [A | {"rule": None}]),
    "no such system": ("sft", SYSTEM, [A]),
    "documents": ("pt", TEXT, [{"text": "words"}]),
    "documents as alpaca": ("pt", None, [{"text": "words"}]),
    "documents as query": ("pt", {"columns": {"query": "text"}}, [{"text": "words"}]),
    "documents of numbers": ("pt", TEXT, [{"text": 4}]),
    "chat as documents": ("pt", CHAT, [chat(H, G)]),
    "broken chat as documents": ("pt", CHAT, [chat(H, G), chat(H)]),
    "pairs": ("dpo", PAIRS, [PAIR]),
    "pairs for rm": ("rm", PAIRS, [PAIR]),
    "pairs unranked": ("dpo", {"columns": PAIRS["columns"]}, [PAIR]),
    "pairs for sft": ("sft", PAIRS, [PAIR]),
    "pairs, one null": ("dpo", PAIRS, [PAIR, PAIR | {"chosen": None}]),
    "pairs, all null": ("dpo", PAIRS, [PAIR | {"chosen": None}]),
    "pairs, columns unsaid": ("dpo", {"ranking": True}, [A | {"chosen": "a", "rejected": "b"}]),
    "pairs of lists": ("dpo", PAIRS, [PAIR | {"chosen": ["a"], "rejected": ["b"]}]),
    "kto": ("kto", KTO, [K, K | {"good": False}]),
    "kto by numbers": ("kto", KTO, [K | {"good": 1}, K | {"good": 0}]),
    "kto by words": ("kto", KTO, [K | {"good": "true"}]),
    "kto untagged": ("kto", {"columns": {"prompt": "prompt", "response": "answer"}}, [K]),
    "kto, no such tag": ("kto", KTO, [{"prompt": "q", "answer": "a"}]),
    "kto, a null tag": ("kto", KTO, [K, K | {"good": None}, K]),
    "kto, a null row": ("kto", KTO, [K, K | {"good": None, "answer": None}, K]),
    "kto, an empty row": ("kto", KTO, [K, K | {"good": None, "answer": ""}, K]),
    "kto, bad and null": ("kto", KTO, [K, K | {"good": False, "answer": None}, K]),
    "kto, bad and empty": ("kto", KTO, [K, K | {"good": False, "answer": ""}, K]),
    "kto for sft": ("sft", KTO, [K, K]),
    "chat": ("sft", CHAT, [chat(H, G), chat("system", H, G, H, G)]),
    "chat, one unanswered": ("sft", CHAT, [chat(H, G), chat(H)]),
    "chat, all unanswered": ("sft", CHAT, [chat(H)]),
    "chat, other order": ("sft", CHAT, [chat(G, H)]),
    "chat, other names": ("sft", CHAT, [chat("user", "assistant")]),
    "chat, null": ("sft", CHAT, [chat(H, G), {"conversations": None}]),
    "chat, null message": ("sft", CHAT, [chat(H, G), {"conversations": [said(H), None]}]),
    "chat, empty": ("sft", CHAT, [chat()]),
    "chat, null text": ("sft", CHAT, [{"conversations": [said(H), said(G, None)]}]),
    "chat, no text": ("sft", CHAT, [chat(H, G), {"conversations": [said(H), {"from": G}]}]),
    "chat, no speaker": ("sft", CHAT, [chat(H, G), {"conversations": [said(H), {"value": "a"}]}]),
    "chat in openai's keys": ("sft", CHAT, [{"conversations": messages(H, G)["messages"]}]),
    "chat in another column": ("sft", CHAT, [messages("user", "assistant")]),
    "chat of text": ("sft", CHAT, [{"conversations": "words"}]),
    "chat of lists": ("sft", CHAT, [{"conversations": [said(H, ["q"]), said(G, ["a"])]}]),
    "chat, tags of keys": (
        "sft",
        CHAT | {"tags": {"role_tag": "from", "content_tag": "value"}},
        [chat(H, G)],
    ),
    "chat, tags of speakers": (
        "sft",
        CHAT | {"tags": {"user_tag": H, "assistant_tag": G}},
        [chat(H, G)],
    ),
    "chat, no messages column": (
        "sft",
        CHAT | {"columns": {"system": "rule"}},
        [chat(H, G, rule="x")],
    ),
    "chat, no such system": (
        "sft",
        CHAT | {"columns": {"messages": "conversations", "system": "rule"}},
        [chat(H, G)],
    ),
    "chat for kto": ("kto", CHAT_KTO, [chat(H, G, good=True), chat(H, G, good=False)]),
    "broken chat for kto": (
        "kto",
        CHAT_KTO,
        [chat(H, G, good=True), chat(H, good=False), chat(H, G, good=True)],
    ),
    "chat pairs": ("dpo", CHAT_PAIRS, [chat(H, **BOTH)]),
    "chat pairs, all answered": ("dpo", CHAT_PAIRS, [chat(H, G, **BOTH)]),
    "chat pairs, one answered": ("dpo", CHAT_PAIRS, [chat(H, **BOTH), chat(H, G, **BOTH)]),
    "chat pairs, one null": (
        "dpo",
        CHAT_PAIRS,
        [chat(H, **BOTH), chat(H, **BOTH | {"chosen": None})],
    ),
    "chat pairs, other name": ("dpo", CHAT_PAIRS, [chat(H, **BOTH | {"chosen": said("ai")})]),
    "chat pairs, null text": ("dpo", CHAT_PAIRS, [chat(H, **BOTH | {"chosen": said(G, None)})]),
    "chat pairs of text": ("dpo", CHAT_PAIRS, [chat(H, chosen="a", rejected="b")]),
    "openai": ("sft", OPENAI, [messages("user", "assistant")]),
    "openai, unknown speaker": ("sft", OPENAI, [messages("developer", "assistant")]),
    "openai, tools": ("sft", OPENAI, [messages("user", "assistant", "tool", "tool", "assistant")]),
    "openai, tools last": ("sft", OPENAI, [messages("user", "assistant", "tool")]),
    "openai, no such system": (
        "sft",
        OPENAI | {"columns": {"messages": "messages", "system": "rule"}},
        [messages("user", "assistant")],
    ),
    "a split": ("sft", {"split": "train[:1]"}, [A, A]),
    "another split": ("sft", {"split": "test"}, [A]),
    "no such formatting": ("sft", {"formatting": "chatml"}, [A]),
    "half a list": ("sft", None, '[{"instruction": "q"'),
    "a broken line": ("sft", None, f'{json.dumps(A)}\n{{"input": "q\n{json.dumps(A)}'),
    "objects over several lines": ("sft", None, json.dumps(A, indent=1) + json.dumps(A, indent=1)),
    "one object": ("sft", None, json.dumps(A)),
    "columns in one object": ("sft", None, json.dumps({key: [value] for key, value in A.items()})),
    "lines with a byte order mark": ("sft", None, f"\ufeff{json.dumps(A)}\n{json.dumps(A)}"),
    "a list with a byte order mark": ("sft", None, f"\ufeff{json.dumps([A])}"),
    "line ends in a list's text": ("sft", None, '[{"instruction":"q","input":"","output":"a\nb"}]'),
    "a list of texts": ("sft", {"columns": {"prompt": "text", "response": "text"}}, ["a", "b"]),
    "lines of texts": ("sft", TEXT, '"a"\n"b"'),
    "nothing": ("sft", None, ""),
    "an empty list": ("sft", None, "[]"),
    "a late first value": (
        "sft",
        None,
        "\n".join(json.dumps(row) for row in [*LONG, LONG[0] | {"input": "late"}]),
    ),
    "a late column": (
        "sft",
        {"columns": {"prompt": "instruction", "response": "output"}},
        "\n".join(json.dumps(row) for row in [*LONG, LONG[0] | {"late": "x"}]),
    ),
    "a late null": (
        "sft",
        {"columns": {"prompt": "instruction", "response": "output"}},
        "\n".join(json.dumps(row) for row in [LONG[0] | {"early": "x"}, *LONG]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_faults_are_what_llamafactory_fails_at(tmp_path: Path, name: str) -> None:
    stage, entry, rows = CASES[name]
    write(tmp_path, rows, entry)
    found = dataset_faults({"dataset": "rows", "dataset_dir": str(tmp_path), "stage": stage})
    more = {"packing": False, "cutoff_len": 64, "max_samples": 20}
    try:
        process(tmp_path, byte_tokenizer(), stage, **more)
    except Exception as error:
        assert found, error
    else:
        assert found == []


def _random_chats(speakers: list[str], key: str, seed: int) -> list[dict[str, Any]]:
    """Conversations of up to five messages, mostly in order; each says its number."""
    draw = random.Random(seed)
    rows = []
    for number in range(300):
        turns = [draw.choice(speakers[2:]) for _ in range(draw.randrange(2))]
        turns += [speakers[turn % 2] for turn in range(draw.randrange(5))]
        if turns and draw.random() < 0.3:
            turns[draw.randrange(len(turns))] = draw.choice(speakers)
        tags = ("from", "value") if key == "conversations" else ("role", "content")
        said = [dict(zip(tags, (turn, f"#{number}."), strict=True)) for turn in turns]
        rows.append({key: said, "chosen": said and said[-1], "number": number})
    return [row | {"chosen": row["chosen"] or None} for row in rows]


@pytest.mark.parametrize(
    ("entry", "speakers"),
    [
        (CHAT, ["human", "gpt", "system", "observation"]),
        (OPENAI, ["user", "assistant", "system", "tool"]),
    ],
)
def test_the_rows_without_a_defect_are_those_llamafactory_keeps(
    tmp_path: Path, entry: dict[str, Any], speakers: list[str]
) -> None:
    key = entry.get("columns", info.DEFAULT_COLUMNS)["messages"]
    rows = _random_chats(speakers, key, seed=3)
    write(tmp_path, rows, entry)
    said = info.look_up("rows", info.read(str(tmp_path)), str(tmp_path))
    assert said is not None
    usable = [row["number"] for row in rows if defect(row, said, "sft") is None]

    tokenizer = byte_tokenizer()
    kept = [
        int(re.findall(r"#(\d+)\.", tokenizer.decode(sample["input_ids"]))[-1])
        for sample in process(tmp_path, tokenizer)
    ]
    assert usable == kept
    assert 30 < len(kept) < 270
