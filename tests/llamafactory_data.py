"""LLaMA-Factory's own processing of data sets that tests write, and tokenizers to run it with."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


def byte_tokenizer(adds_bos: bool = False, **special: str) -> PreTrainedTokenizerBase:
    """One token for each byte, plus <s>, </s> and <pad>; `adds_bos` as Llama's tokenizer does."""
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"} | special
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*dict.fromkeys(special.values()), *alphabet]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def write(folder: Path, rows: Any, entry: dict[str, Any] | None = None, name: str = "rows") -> Path:
    """Rows (a list, or a file's text) in FOLDER/NAME.json, with their entry; returns the folder."""
    text = rows if isinstance(rows, str) else json.dumps(rows, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    info = folder / "dataset_info.json"
    entries = json.loads(info.read_text()) if info.exists() else {}
    entries[name] = {"file_name": f"{name}.json"} | (entry or {})
    info.write_text(json.dumps(entries), encoding="utf-8")
    return folder


def process(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    stage: str = "sft",
    dataset: str = "rows",
    **arguments: Any,
) -> Any:
    """The training samples that LLaMA-Factory makes of FOLDER's data set.

    Args:
        folder: holds dataset_info.json and the rows.
        tokenizer: LLaMA-Factory completes its special tokens, in place.
        stage: LLaMA-Factory's.
        dataset: the name in dataset_info.json.
        arguments: keys of a recipe, such as template and cutoff_len.
    """
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, ModelArguments
    from transformers import Seq2SeqTrainingArguments

    cache = str(folder / "cache")
    model = ModelArguments(model_name_or_path="none", cache_dir=cache)
    data = DataArguments(
        dataset=dataset, dataset_dir=str(folder), **{"template": "default"} | arguments
    )
    training = Seq2SeqTrainingArguments(output_dir=cache, use_cpu=True, report_to="none")
    template = get_template_and_fix_tokenizer(tokenizer, data)
    kind = "rm" if stage == "dpo" else stage  # as LLaMA-Factory's dpo workflow asks for its data
    made = get_dataset(template, model, data, training, stage=kind, tokenizer=tokenizer)
    return made["train_dataset"]
