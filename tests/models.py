"""Tiny models of real architectures, and what tests do with them."""

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
)

VOCABULARY, HIDDEN, LAYERS = 64, 32, 3
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ARCHITECTURES = {
    "llama": {},
    "gemma": {"tie_word_embeddings": True},
    "gemma2": {"tie_word_embeddings": True, "final_logit_softcapping": 3.0, "sliding_window": 16},
    "gemma3_text": {"tie_word_embeddings": True, "sliding_window": 16},
    "qwen2": {"tie_word_embeddings": False},
    "qwen3": {"tie_word_embeddings": False},
    "mistral": {"sliding_window": None},
    "phi3": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
}


def tiny(
    name: str = "llama",
    dtype: torch.dtype = torch.float64,
    attention: str = "sdpa",
    seed: int = 0,
    **changes: object,
) -> PreTrainedModel:
    """A freshly drawn model; the same seed draws the same weights."""
    config = AutoConfig.for_model(name, **{**_SIZES, **ARCHITECTURES[name], **changes})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():  # larger than the initial 0.02, so that losses differ
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
    return model.train()


def batches(count: int, size: int = 2, length: int = 9, seed: int = 1) -> list[Tensor]:
    """`count` batches of token ids `(size, length)`."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (size, length), generator=generator) for _ in range(count)]


def loss_of(model: nn.Module, ids: Tensor) -> Tensor:
    return model(input_ids=ids, labels=ids).loss


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], **tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(
            value,
            theirs[name],
            msg=lambda m, n=name: f"{n}: {m}",
            **(tolerance or {"rtol": 1e-9, "atol": 1e-11}),
        )


def seeing(depth=1):
    """A model of a vision tower and a language model, which no AutoModelForCausalLM loads."""
    text = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 64,
        "num_attention_heads": 2, "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    vision = {"depth": depth, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 4}
    config = AutoConfig.for_model("qwen2_vl", text_config=text, vision_config=vision)
    return AutoModelForImageTextToText.from_config(config)
