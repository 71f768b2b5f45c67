"""A tokenizer and models for documents written by hand, and a model that has learnt the answers."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.evaluation.conftest import make
from tests.evaluation.scripted import SUBJECTS

KNOWN = 0.04  # a loss at which an answer is known by heart

# Where each suite's documents are, and what should follow the prompt of one.
ANSWERS = {
    "gsm8k-5shot": ("gsm8k/test", lambda row: " " + row["answer"]),
    "gsm8k-cot": ("gsm8k/test", lambda row: " " + row["answer"]),
    "gsm8k-train-prompt": ("gsm8k/test", lambda row: " " + row["answer"]),
    "mbpp-greedy": ("mbpp/test", lambda row: row["code"] + "\n[DONE]"),
    "mmlu-ppl": ("mmlu/{}/test", lambda row: " " + "ABCD"[row["answer"]]),
    "mmlu-gen": ("mmlu/{}/test", lambda row: " " + "ABCD"[row["answer"]]),
    "mmlu-continuation": ("mmlu/{}/test", lambda row: " " + row["choices"][row["answer"]]),
    "arc-c": ("arc_challenge/test", lambda row: " " + _chosen(row)),
    "arc-e": ("arc_easy/test", lambda row: " " + _chosen(row)),
    "obqa": ("openbookqa/test", lambda row: " " + _chosen(row)),
    "hellaswag": ("hellaswag/validation", lambda row: " " + row["endings"][int(row["label"])]),
    "piqa": ("piqa/validation", lambda row: " " + row[f"sol{row['label'] + 1}"]),
    "siqa": (
        "social_i_qa/validation",
        lambda row: " " + row["answer" + "ABC"[int(row["label"]) - 1]],
    ),
    "boolq": ("boolq/validation", lambda row: " " + ["no", "yes"][row["label"]]),
}


def _chosen(row: dict) -> str:
    return row["choices"]["text"][row["choices"]["label"].index(row["answerKey"])]


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def lessons(data: Path, samples: Path) -> list[tuple[str, str]]:
    """(prompt, answer): the prompts that were asked, the answers from the documents."""
    found = set()
    for suite, (place, answer) in ANSWERS.items():
        for line in read(samples / f"{suite}.jsonl"):
            subject = next((s for s in SUBJECTS.values() if s in line["task"]), "")
            rows = read(data / f"{place.format(subject)}.jsonl")
            found.add((line["prompt"], answer(rows[line["document"]])))
    for row in read(data / "winogrande/validation.jsonl"):
        before, after = row["sentence"].split("_")
        for option in "12":  # what follows the wrong one is something else
            right = option == row["answer"]
            found.add((before + row[f"option{option}"], after if right else " no"))
    return sorted(found, key=lambda lesson: len(lesson[0]))


def tokenizer_of(data: Path) -> PreTrainedTokenizerFast:
    """Bytes, and the words of the documents."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        [path.read_text() for path in sorted(data.rglob("*.jsonl"))],
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def blank():
    """A model that knows nothing."""
    return make(
        scale=0.1, vocab_size=600, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        head_dim=16, max_position_embeddings=1024,
    )  # fmt: skip


def teach(model, tokenizer, pairs: list[tuple[str, str]]) -> float:
    """Train on the answers until they are known by heart; the last epoch's highest loss."""
    rows = []
    for prompt, answer in pairs:
        asked = [1, *tokenizer.encode(prompt, add_special_tokens=False)]
        rows.append((asked, [*tokenizer.encode(answer, add_special_tokens=False), 2]))
    batches = [_padded(rows[start : start + 4]) for start in range(0, len(rows), 4)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(200):
        losses = []
        optimizer.param_groups[0]["lr"] = 4e-3 * max(0.93**epoch, 0.1)
        for number in torch.randperm(len(batches), generator=generator).tolist():
            tokens, labels = batches[number]
            hidden = model.model(tokens).last_hidden_state[:, :-1]
            wanted = labels[:, 1:]
            known = wanted >= 0
            loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[known]), wanted[known])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        if max(losses) < KNOWN:
            break
    return max(losses)


def _padded(rows):
    """Tokens, and labels that are -1 outside the answers."""
    longest = max(len(asked) + len(answer) for asked, answer in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full_like(tokens, -1)
    for row, (asked, answer) in enumerate(rows):
        end = len(asked) + len(answer)
        tokens[row, :end] = torch.tensor(asked + answer)
        labels[row, len(asked) : end] = torch.tensor(answer)
    return tokens, labels
