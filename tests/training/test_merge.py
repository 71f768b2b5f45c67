import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from losia_cli import files
from losia_cli.errors import UserError
from losia_cli.run_folder import RECORD
from losia_cli.training import merge as module
from losia_cli.training.merge import merge
from tests.e2e.conftest import make_model
from tests.models import batches

TARGETS = ["q_proj", "v_proj", "down_proj"]
KINDS = {"lora": {}, "dora": {"use_dora": True}, "rslora": {"use_rslora": True}}


def saved(folder):
    return load_file(folder / "model.safetensors")


def logits(model):
    with torch.no_grad():
        return torch.cat([model.eval()(input_ids=ids).logits.float() for ids in batches(3)])


def fill(model, seed=0):
    """An adapter as after training: no part of it is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name and "magnitude" not in name:
                parameter.normal_(0, 0.1, generator=generator)


@pytest.fixture
def base(tmp_path):
    return make_model(tmp_path / "base")


@pytest.fixture
def adapted(tmp_path):
    """Puts an adapter into tmp_path/run, on a base stored in a dtype."""

    def build(base, dtype=torch.float32, **changes):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        model.save_pretrained(base)
        settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, **changes}
        tuned = get_peft_model(model, LoraConfig(**settings))
        fill(tuned)
        tuned.save_pretrained(tmp_path / "run")
        return tmp_path / "run"

    return build


def on_its_base(run, base, dtype=torch.float32):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    return PeftModel.from_pretrained(model, run)


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_answers_as_the_adapter_does(base, adapted, tmp_path, kind):
    run = adapted(base, **KINDS[kind])
    off = merge(run, tmp_path / "out")
    ours = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    theirs = logits(on_its_base(run, base))
    assert (theirs - logits(AutoModelForCausalLM.from_pretrained(base))).abs().max() > 1e-2
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert off < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_adapted_weight_is_the_sum_rounded_once_and_all_else_the_bases(
    base, adapted, tmp_path, dtype
):
    run = adapted(base, dtype)
    merge(run, tmp_path / "out")
    before, after = saved(base), saved(tmp_path / "out")
    low_rank = load_file(run / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    for name, weight in before.items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{key}.lora_A.weight" in low_rank:
            product = low_rank[f"{key}.lora_B.weight"] @ low_rank[f"{key}.lora_A.weight"]
            expected = (weight.float() + 8 / 4 * product).to(dtype)
            assert not torch.equal(weight, expected)
        else:
            expected = weight
        if dtype == torch.float32:  # products are summed in the order that a processor likes
            torch.testing.assert_close(after[name], expected, rtol=1e-6, atol=1e-8)
        else:
            assert torch.equal(after[name], expected), name


def test_tied_embeddings_stay_tied(adapted, tmp_path):
    base = make_model(tmp_path / "gemma", "gemma", tie_word_embeddings=True)
    run = adapted(base)
    merge(run, tmp_path / "out")
    assert "lm_head.weight" not in saved(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    torch.testing.assert_close(logits(model), logits(on_its_base(run, base)), rtol=1e-4, atol=1e-5)


def test_tokenizer_and_generation_settings_are_the_bases(base, adapted, tmp_path):
    run = adapted(base)
    generation = '{"temperature": 0.6, "do_sample": false}'  # which transformers refuses to save
    (base / "generation_config.json").write_text(generation)
    merge(run, tmp_path / "out")
    text = "What is 3 plus 4?"
    ours, theirs = (AutoTokenizer.from_pretrained(place) for place in (tmp_path / "out", base))
    assert ours(text) == theirs(text)
    assert (tmp_path / "out/generation_config.json").read_text() == generation


def test_the_tokenizer_of_the_run_comes_first(base, adapted, tmp_path):
    run = adapted(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(run)
    merge(run, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == "{{ messages }}"


@pytest.mark.parametrize(
    ("recipe", "asked", "dtype"),
    [
        ({"bf16": True}, None, torch.bfloat16),
        ({"pure_bf16": True}, None, torch.bfloat16),
        ({"bf16": True}, "float32", torch.float32),
        ({}, None, torch.float16),
    ],
)
def test_the_dtype_is_the_runs_unless_another_is_asked_for(
    base, adapted, tmp_path, recipe, asked, dtype
):
    run = adapted(base, torch.float16)
    (run / RECORD).write_text(json.dumps({"recipe": recipe}))
    merge(run, tmp_path / "out", asked)
    assert {weight.dtype for weight in saved(tmp_path / "out").values()} == {dtype}


def test_another_dtype_does_not_change_which_base_was_trained_on(base, adapted, tmp_path):
    run = adapted(base, torch.float16)
    (run / RECORD).write_text(json.dumps({"recipe": {"bf16": True}}))
    merge(run, tmp_path / "out", "float32")
    name = "model.embed_tokens.weight"
    before, after = saved(base)[name], saved(tmp_path / "out")[name]
    assert torch.equal(after, before.bfloat16().float())
    assert not torch.equal(after, before.float())


# ------------------------------------------------------------------------- what is refused


@pytest.fixture
def refusal(tmp_path):
    """What `merge` says when it refuses; asserts that it left nothing behind."""

    def says(run, output=None):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserError) as caught:
            merge(run, output or tmp_path / "out")
        assert sorted(tmp_path.rglob("*")) == before
        return str(caught.value)

    return says


def test_a_whole_model(base, refusal):
    assert f"{base} holds no adapter" in refusal(base)


def test_a_folder_that_is_there(base, adapted, refusal, tmp_path):
    (tmp_path / "taken").mkdir()
    assert f"{tmp_path / 'taken'} exists" in refusal(adapted(base), tmp_path / "taken")


def test_an_adapter_of_residual_weights(base, adapted, refusal):
    run = adapted(base, init_lora_weights="pissa")
    assert f"{run / 'pissa_converted'} is not there: train with pissa_convert" in refusal(run)


def test_a_reward_models_adapter(base, adapted, refusal):
    run = adapted(base)
    save_file({"v_head.summary.weight": torch.zeros(1, 32)}, run / "value_head.safetensors")
    assert "value_head.safetensors no merged model has a place for" in refusal(run)


def test_a_folder_that_cannot_be_written_into(base, adapted, refusal, monkeypatch, tmp_path):
    run = adapted(base)
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    assert f"{tmp_path} cannot be written into" in refusal(run)


def test_an_adapter_of_another_base(base, adapted, refusal, tmp_path):
    run = adapted(base)
    make_model(base, hidden_size=64)
    assert "does not fit" in refusal(run)


def test_an_adapter_that_is_not_finite(base, adapted, refusal):
    run = adapted(base)
    path = run / "adapter_model.safetensors"
    weights = load_file(path)
    weights[next(iter(weights))].fill_(float("nan"))
    from safetensors.torch import save_file

    save_file(weights, path)
    assert "not finite" in refusal(run)


def test_an_end_while_writing_leaves_nothing(base, adapted, tmp_path, monkeypatch):
    run = adapted(base)
    before = sorted(tmp_path.rglob("*"))

    def stop(model, folder):
        assert saved(folder)  # all is written, and not yet under its name
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "verify_saved", stop)
    with pytest.raises(KeyboardInterrupt):
        merge(run, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
