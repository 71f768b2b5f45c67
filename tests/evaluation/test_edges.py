"""Prompts at the edges: cut, shared as beginnings, not greedy from the first token on."""

import pytest
import torch

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
