"""Bytes that one decoder layer keeps for backward, by method, counted on the CPU.

What counts is what autograd holds once the layer's forward is done, each storage once, without
parameters, buffers and the position embeddings, which all layers share. At T tokens in one
sequence these bytes are `fixed + per_token * T + per_pair * T^2`; three lengths give all three.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from losia_cli.bench.methods import LORA_RANK, Row, install
from losia_cli.bench.models import random_llama, sharing_copy
from losia_cli.bench.settings import FLOOR, MEMORY_METHODS, PRESETS, refuse_unknown
from losia_cli.bench.table import table
from losia_cli.method import LoSiAConfig
from losia_cli.method.attach import decoder_layers, share
from losia_cli.training.kept import SavedTensors

ATTENTIONS = ("sdpa", "eager")
DTYPE = torch.bfloat16
LENGTH = 16


@dataclass(frozen=True)
class Kept:
    """Bytes kept by one layer: whatever the length, per token, per pair of tokens."""

    fixed: float
    per_token: float
    per_pair: float

    @classmethod
    def fitted(cls, at_length: Callable[[int], int], length: int) -> "Kept":
        """From the bytes `at_length` once, twice and three times `length`."""
        one, two, three = (at_length(length * times) for times in (1, 2, 3))
        per_pair = (three - 2 * two + one) / (2 * length**2)
        per_token = (two - one) / length - 3 * per_pair * length
        return cls(one - per_token * length - per_pair * length**2, per_token, per_pair)


def run_memory_benchmark(
    shape: dict[str, Any] = PRESETS["llama2-7b"].config,
    methods: Sequence[str] = MEMORY_METHODS,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Count for every method under both attentions, in bfloat16.

    Args:
        shape: a Llama's configuration; one layer of it is built, with a small vocabulary.
        methods: which of `MEMORY_METHODS` to count.
        progress: called with a line before each count.

    Returns:
        What JSON can hold: the shape, and for each attention and method the bytes that `Kept`
        describes, and what `computed` expects as `computed_per_token`.

    Raises:
        UserError: an unknown method.
    """
    refuse_unknown(methods, MEMORY_METHODS)
    base = random_llama(
        {**shape, "vocab_size": 64, "num_hidden_layers": 1}, DTYPE, torch.device("cpu")
    )
    counts: dict[str, dict[str, Any]] = {}
    for attention in ATTENTIONS:
        counts[attention] = {}
        for method in methods:
            progress(f"{attention}: {method}")
            expected = computed(method, attention, shape["hidden_size"], shape["intermediate_size"])
            counts[attention][method] = {
                **asdict(kept_by_layer(base, method, attention)),
                "computed_per_token": expected,
            }
    return {"benchmark": "memory", "shape": shape, "dtype": "bfloat16", "attention": counts}


def kept_by_layer(base: PreTrainedModel, method: str, attention: str) -> Kept:
    """What the first decoder layer of a copy of `base` keeps under `method`."""
    model = sharing_copy(base)
    model.set_attn_implementation(attention)
    trained, _ = install(Row(method), model)
    _, layers = decoder_layers(trained)

    def at_length(tokens: int) -> int:
        return _kept_bytes(trained, layers[0], model, tokens)

    return Kept.fitted(at_length, LENGTH)


def computed(method: str, attention: str, hidden: int, intermediate: int) -> float:
    """Bytes per token by arithmetic, for as many key heads as heads; terms below 1 % left out.

    The floor: two inputs of the norms in float32; queries, keys, values and, but under eager
    attention, the attention's output; three tensors of SiLU times up. On top of it
    - losia: the four distinct inputs of the seven linears; `o_proj`'s is the attention's output;
    - losia-pro: a share p of each of the seven, but for `o_proj`'s where attention keeps it;
    - lora: the seven inputs, cast anew for each adapter, and their seven products of width r;
    - dora: LoRA's, and of each linear the output of the base and of the adapter;
    - full: losia's, and of each norm what its weight is multiplied with.
    """
    size, attention_keeps = DTYPE.itemsize, attention != "eager"
    floor = 2 * 4 * hidden + size * ((3 + attention_keeps) * hidden + 3 * intermediate)
    p = LoSiAConfig().rank_factor
    losia = (3 - attention_keeps) * hidden + intermediate
    lora = 6 * hidden + intermediate + 7 * LORA_RANK
    extra = {
        FLOOR: 0,
        "losia": losia,
        "losia-pro": (6 - attention_keeps) * share(hidden, p) + share(intermediate, p),
        "lora": lora,
        "dora": lora + 2 * (5 * hidden + 2 * intermediate),
        "full": losia + 2 * hidden,
    }
    return floor + size * extra[method]


def render(result: dict[str, Any]) -> str:
    """The result of `run_memory_benchmark` as a table with its legend."""
    shape = result["shape"]
    lines = [
        [f"{attention} {method}", *_cells(entry, counts.get(FLOOR))]
        for attention, counts in result["attention"].items()
        for method, entry in counts.items()
    ]
    header = ["", "KiB per token", "computed", "over floor", "fixed MiB", "B per pair"]
    return "\n".join(
        [
            f"Kept for backward by one Llama layer, hidden {shape['hidden_size']}, intermediate "
            f"{shape['intermediate_size']}, {result['dtype']}",
            "",
            table(header, lines),
            "",
            "B per pair: bytes for each pair of tokens of one sequence, which eager attention "
            "keeps. fixed: whatever the number of tokens.",
        ]
    )


def _kept_bytes(trained: nn.Module, layer: nn.Module, model: PreTrainedModel, tokens: int) -> int:
    x = torch.randn(1, tokens, model.config.hidden_size, dtype=DTYPE, requires_grad=True)
    positions = torch.arange(tokens)[None]
    angles = model.base_model.rotary_emb(x, positions)
    mask = torch.full((tokens, tokens), torch.finfo(DTYPE).min, dtype=DTYPE).triu(1)
    eager = model.config._attn_implementation == "eager"
    saved = SavedTensors()
    with torch.autocast("cpu", DTYPE), saved:
        y = layer(x, attention_mask=mask[None, None] if eager else None, position_embeddings=angles)
    kept = saved.nbytes((*trained.parameters(), *trained.buffers(), *angles))
    del y  # the graph had to live until here
    return kept


def _cells(entry: dict[str, Any], floor: dict[str, Any] | None) -> list[str]:
    return [
        f"{entry['per_token'] / 1024:.2f}",
        f"{entry['computed_per_token'] / 1024:.2f}",
        "" if floor is None else f"{(entry['per_token'] - floor['per_token']) / 1024:.2f}",
        f"{entry['fixed'] / 2**20:.2f}",
        f"{entry['per_pair']:.1f}",
    ]
