"""What the benchmarks are asked to do; importing this loads no torch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from losia_cli.errors import UserError
from losia_cli.spelling import did_you_mean

FLOOR = "floor"
# "-chunked": the loss is `use_chunked_loss`.
USUAL_METHODS = (
    "full", "lora", "lora-chunked", "dora", "losia", "losia-pro", "losia-pro-chunked"
)  # fmt: skip
STEP_METHODS = (*USUAL_METHODS, "galore")  # which needs a package more, and minutes for its SVDs
SIZE_METHODS = ("lora", "dora", "losia", "losia-pro")
MEMORY_METHODS = (FLOOR, "losia-pro", "losia", "lora", "dora", "full")
DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Preset:
    """A Llama with random weights: its configuration, sequences in a batch, tokens in each."""

    config: dict[str, Any]
    batch: int
    tokens: int


PRESETS = {
    "tiny-1024": Preset(
        {
            "vocab_size": 1024,
            "hidden_size": 1024,
            "intermediate_size": 2816,
            "num_hidden_layers": 4,
            "num_attention_heads": 16,
        },
        batch=2,
        tokens=512,
    ),
    "smollm2-135m": Preset(
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
        },
        batch=4,
        tokens=128,
    ),
    "llama2-7b": Preset(
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 4096,
        },
        batch=4,
        tokens=2048,
    ),
}


@dataclass(frozen=True)
class StepSettings:
    """The settings of a step benchmark.

    Attributes:
        model: a name in `PRESETS`, or what `from_pretrained` takes.
        methods: which of `STEP_METHODS` to measure; the floor is always measured.
        batch: sequences per step; 0 stands for the preset's, or 2 for other models.
        tokens: tokens per sequence; 0 stands for the preset's, or 512 for other models.
        repeats: rounds; in each of them every method takes its turn.
        dtype: of the base weights; "auto" is bfloat16 on a GPU and float32 elsewhere.
        checkpointing: recompute activations in backward.
    """

    model: str = "tiny-1024"
    methods: tuple[str, ...] = USUAL_METHODS
    batch: int = 0
    tokens: int = 0
    repeats: int = 5
    dtype: str = "auto"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        """Raise a `UserError` naming the first setting that cannot be."""
        for name, least in {"batch": 0, "tokens": 0, "repeats": 1}.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}, but must be at least {least}")
        if self.dtype not in DTYPES:
            raise UserError(f"dtype is {self.dtype!r}, but must be one of {', '.join(DTYPES)}")

    def filled(self, on_gpu: bool) -> "StepSettings":
        """A copy with everything that was left to the model or the device filled in."""
        preset = PRESETS.get(self.model, Preset({}, batch=2, tokens=512))
        usual = "bfloat16" if on_gpu else "float32"
        return replace(
            self,
            batch=self.batch or preset.batch,
            tokens=self.tokens or preset.tokens,
            dtype=usual if self.dtype == "auto" else self.dtype,
        )


def refuse_unknown(methods: Sequence[str], known: Collection[str]) -> None:
    """Raise a `UserError` for the first of `methods` that is not among `known`."""
    for method in methods:
        if method not in known:
            hint = did_you_mean(method, known)
            raise UserError(f"unknown method {method!r}{hint} (methods: {', '.join(known)})")


SIZE_DEFAULTS = StepSettings("llama2-7b", ("lora", "losia"), repeats=1, checkpointing=True)
