"""The next token: the most likely one, or one drawn by temperature and top-p."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: softmax of logits / temperature, cut to its top_p."""

    temperature: float
    top_p: float = 1.0


def chances(seed: int, prompt: Sequence[int], number: int, count: int) -> list[float]:
    """`count` uniform numbers that belong to one sample of one prompt, whatever else is drawn."""
    word = hashlib.sha256(json.dumps([seed, list(prompt), number]).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(word[:7], "big"))
    return torch.rand(count, generator=generator, dtype=torch.float64).tolist()


def greedy(logits: Tensor) -> list[int]:
    """The most likely token of each row of `[rows, vocabulary]`; of equals the first."""
    return logits.argmax(-1).tolist()


def draw(logits: Tensor, chance: Sequence[float], how: Sampling) -> list[int]:
    """One token for each row of `[rows, vocabulary]`, by one uniform number each (inverse CDF)."""
    ordered, tokens = (logits.float() / how.temperature).softmax(-1).sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    ordered = ordered.masked_fill(before >= how.top_p, 0.0)
    total = ordered.double().cumsum(-1)
    aim = torch.tensor(chance, dtype=torch.float64, device=total.device)[:, None] * total[:, -1:]
    index = torch.searchsorted(total, aim, right=True).clamp(max=total.shape[1] - 1)
    return tokens.gather(1, index)[:, 0].tolist()
