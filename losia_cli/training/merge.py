"""A low-rank adapter written into the weights of its base: an ordinary model again."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from losia_cli.errors import UserError
from losia_cli.evaluation import checkpoint, loading
from losia_cli.evaluation.checkpoint import Checkpoint
from losia_cli.files import expect_writable
from losia_cli.training.proof import verify_saved

_GENERATION = "generation_config.json"
_VALUE_HEAD = "value_head.safetensors"  # of stage rm


def merge(adapter: Path, output: Path, dtype: str | None = None) -> float:
    """Write `W + scale * B A` for every adapted weight, and all else of the base as it is.

    The base is the one that was trained on, in the dtype of that computation; the sum is made in
    the adapter's (float32 unless it was trained in another) and rounded once, to `dtype`. The
    folder appears under its name when it is whole: written beside it, reloaded and compared bit
    for bit.

    Args:
        adapter: the output_dir of a run that trained an adapter, or one of its checkpoints.
        output: the folder to write; nothing may be there.
        dtype: of the merged weights; by default the run's dtype of computation, else the base's.

    Returns:
        The most that a next token's log-probability differs from the adapter's on top of its base.

    Raises:
        UserError: no adapter there, `output` is taken, or the sum is not finite.
    """
    if output.exists():
        raise UserError(f"{output} exists: name a folder that does not, for the merged model")
    expect_writable(output)
    found = _adapted(adapter)
    model = loading.load_model(found, computed_in(found), "cpu")
    expected = _log_probabilities(model)
    wanted = getattr(torch, dtype or computed_in(found))
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.to(wanted)
    merged = model.merge_and_unload()
    off = (_log_probabilities(merged) - expected).abs().max().item()
    if not torch.isfinite(torch.tensor(off)):
        raise UserError(f"{adapter} on its base gives numbers that are not finite: nothing written")
    _write(merged, found, output)
    return off


def _adapted(folder: Path) -> Checkpoint:
    found = checkpoint.find(str(folder))
    if found.adapter is None:
        raise UserError(
            f"{folder} holds no adapter ({checkpoint.ADAPTER}): what full fine-tuning or LoSiA"
            " trained is a whole model, with nothing to merge"
        )
    if (found.adapter / _VALUE_HEAD).is_file():
        raise UserError(
            f"{folder} is a reward model's, whose {_VALUE_HEAD} no merged model has a place for:"
            " load the adapter on its base"
        )
    return found


def computed_in(found: Checkpoint) -> str:
    """The dtype the base was cast to for training: as the run's recipe says, else as it is kept."""
    recipe = found.recipe
    if recipe.get("bf16") or recipe.get("pure_bf16"):
        return "bfloat16"
    if recipe.get("fp16"):
        return "float16"
    stored = AutoConfig.from_pretrained(found.model).dtype or torch.float32
    return str(stored).removeprefix("torch.")


@torch.no_grad()
def _log_probabilities(model: Any) -> torch.Tensor:
    """Of every next token of a fixed text, (1, 32, vocabulary)."""
    tokens = torch.arange(min(32, model.config.get_text_config().vocab_size))[None]
    return model(input_ids=tokens).logits.float().log_softmax(-1)


def _write(model: Any, found: Checkpoint, output: Path) -> None:
    """The model, the base's generation settings and the tokenizer, or nothing."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
        work = Path(scratch) / output.name
        # The base's own file is copied: some models' settings are refused when they are saved.
        model.generation_config = GenerationConfig.from_model_config(model.config)
        model.save_pretrained(work)
        if (found.model / _GENERATION).is_file():
            shutil.copy(found.model / _GENERATION, work)
        loading.load_tokenizer(found).save_pretrained(work)
        verify_saved(model, work)
        work.rename(output)
