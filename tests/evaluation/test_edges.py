"""Edges: prompts that are cut or begin alike, capped attention, batches of a GPU's size."""

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from losia_cli.evaluation import loading, run
from losia_cli.evaluation.batches import limit_for
from losia_cli.evaluation.checkpoint import Checkpoint
from tests.evaluation.conftest import CONTEXT, make
from tests.evaluation.test_model import WORDS, ask, plain_likelihood, plain_response


def test_a_prompt_is_cut_on_the_left_to_exactly_what_fits(ready, tokenizer):
    model = make()
    long = " ".join(WORDS * 40)
    lm = ready(model)
    ((score, _),) = lm.loglikelihood(ask("loglikelihood", [(long, " yes")]))
    tokens = [tokenizer.bos_token_id, *tokenizer.encode(long + " yes", add_special_tokens=False)]
    choice = len(tokenizer.encode(" yes", add_special_tokens=False))
    kept = tokens[-(CONTEXT + 1) :]  # the last one is scored, and never read
    with torch.no_grad():
        logits = model(torch.tensor([kept[:-1]])).logits[0].float().log_softmax(-1)
    want = sum(float(logits[i - 1, kept[i]]) for i in range(len(kept) - choice, len(kept)))
    assert score == pytest.approx(want, rel=1e-4)


def test_a_first_token_that_is_not_greedy_is_enough(ready, tokenizer):
    model = make()
    context = [tokenizer.bos_token_id, *tokenizer.encode("One and", add_special_tokens=False)]
    first = plain_response(model, tokenizer, "One and", 1)[0] % 200 + 50
    with torch.no_grad():
        second = int(model(torch.tensor([[*context, first]])).logits[0, -1].argmax())
    ((_, greedy),) = ready(model)._loglikelihood_tokens([(None, context, [first, second])])
    assert greedy is False


def test_a_prompt_that_begins_all_others(ready, tokenizer):
    model = make()
    opening = " ".join(WORDS * 4)
    pairs = [(opening + more, " yes") for more in ("", " and", " and more")]
    found = ready(model).loglikelihood(ask("loglikelihood", pairs))
    for pair, (score, _) in zip(pairs, found, strict=True):
        assert score == pytest.approx(plain_likelihood(model, tokenizer, *pair, True)[0], rel=1e-4)


def test_capped_scores_of_attention_are_capped(tmp_path, tokenizer):
    """By Gemma 2's own, plain attention: torch's kernels, which are faster, leave the cap out."""
    make("gemma2", attn_logit_softcapping=0.02).save_pretrained(tmp_path)
    model = loading.load_model(Checkpoint("gemma", tmp_path, tmp_path), "float32", "cpu")
    tokens = torch.tensor([list(range(5, 25))])
    found, capped, open_ = (
        AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=name)(tokens).logits
        if name
        else model(tokens).logits
        for name in ("", "eager", "sdpa")
    )
    torch.testing.assert_close(found, capped)
    assert not torch.allclose(capped, open_, rtol=1e-2)


def test_on_a_gpu_a_batch_is_as_large_as_its_keys_and_values_allow():
    """LLaMA-2 7B keeps 0.5 MiB of a token in bfloat16, 13B 0.78, Gemma 2B 18 KiB."""
    shapes = {
        "7b": AutoConfig.for_model("llama"),
        "13b": AutoConfig.for_model(
            "llama", hidden_size=5120, num_hidden_layers=40, num_attention_heads=40
        ),
        "gemma": AutoConfig.for_model(
            "gemma", num_hidden_layers=18, num_key_value_heads=1, head_dim=256
        ),
    }
    found = {
        name: limit_for(config, torch.bfloat16, "cuda").to_generate
        for name, config in shapes.items()
    }
    assert found == {"7b": 2**16, "13b": 2**35 // (2 * 40 * 5120 * 2), "gemma": 2**18}
    assert limit_for(shapes["7b"], torch.float32, "cuda").to_generate == 2**15
    without_heads = AutoConfig.for_model("mamba")
    assert limit_for(without_heads, torch.bfloat16, "cuda").to_generate == 2**14


def test_every_module_that_decides_a_response_is_part_of_its_identity():
    """What they import of the evaluation's own decides as well."""
    folder = Path(run.__file__).parent
    for name in run._DECIDE:
        imported = re.findall(
            r"^from losia_cli\.evaluation(?:\.(\w+))? import (.+)$",
            (folder / f"{name}.py").read_text(),
            re.MULTILINE,
        )
        names = {
            one for module, what in imported for one in ([module] if module else what.split(", "))
        }
        assert names - {"store", "checkpoint"} <= set(run._DECIDE), name
