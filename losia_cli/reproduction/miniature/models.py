"""Tiny random models of the plans' architectures, with a tokenizer of our own."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

VOCABULARY = 512
CONTEXT = 2048
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")

_GEMMA = {
    "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
    "tie_word_embeddings": True,
}  # fmt: skip
_LLAMA = {
    "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": False,
}  # fmt: skip
_TIED = {**_LLAMA, "num_key_value_heads": 2, "tie_word_embeddings": True}
_LARGER = {**_LLAMA, "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 4}

# The name in a plan -> the folder's, by which the paper's numbers are found; architecture; sizes.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gemma-2b": ("gemma-2b", "gemma", _GEMMA),
    "llama2-7b": ("Llama-2-7b-hf", "llama", _LLAMA),
    "llama2-13b": ("Llama-2-13b-hf", "llama", _LARGER),
    "llama3.2-3b": ("Llama-3.2-3B", "llama", _TIED),
}


def write(folder: Path, texts: Iterable[str]) -> None:
    """Write every model with a tokenizer that is trained on `texts`."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # each model is a megabyte
    tokenizer = _tokenizer(texts)
    for place, architecture, sizes in MODELS.values():
        _model(architecture, len(tokenizer), sizes).save_pretrained(folder / place)
        tokenizer.save_pretrained(folder / place)


def _tokenizer(texts: Iterable[str]) -> Any:
    """A byte-level BPE that begins every text with <s> and splits numbers into digits, as LLaMA's.

    Nothing is unknown to it; the unknown token is there for what expects one.
    """
    from tokenizers import (  # type: ignore[import-untyped]
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def _model(architecture: str, vocabulary: int, sizes: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        architecture,
        vocab_size=vocabulary,
        max_position_embeddings=CONTEXT,
        initializer_range=sizes["hidden_size"] ** -0.5,  # for a frozen output layer to be usable
        pad_token_id=SPECIAL.index("<pad>"),
        bos_token_id=SPECIAL.index("<s>"),
        eos_token_id=SPECIAL.index("</s>"),
        **sizes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
