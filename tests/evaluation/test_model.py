"""What the model answers, against plain forward passes and a token loop written by hand."""

import random

import pytest
import torch
from lm_eval.api.instance import Instance

from losia_cli.errors import UserError
from losia_cli.evaluation.store import Store
from tests.evaluation.conftest import CONTEXT, make

ARCHITECTURES = {
    "llama": {},
    "gemma": {"tie_word_embeddings": True},
    "gemma2": {"tie_word_embeddings": True, "sliding_window": 16},
    "mistral": {"sliding_window": 16},
    "qwen2": {},
}
WORDS = "What is two plus three or more of them? It makes seven apples, then 12 more.".split()


def text(generator, low, high):
    return " ".join(generator.choices(WORDS, k=generator.randint(low, high)))


def choices(count=12, options=4, seed=0):
    """(context, continuation) pairs: every context with several continuations."""
    generator = random.Random(seed)
    opening = text(generator, 30, 30) + "\n\n"  # alike for all, as few-shot examples are
    contexts = [opening + text(generator, 1, 12) for _ in range(count)]
    return [(c, " " + text(generator, 1, 5)) for c in contexts for _ in range(options)]


def ask(kind, arguments, task="toy"):
    return [
        Instance(kind, {}, pair, number, metadata=(task, number, 1))
        for number, pair in enumerate(arguments)
    ]


@torch.no_grad()
def plain_likelihood(model, tokenizer, context, continuation, bos):
    start = [tokenizer.bos_token_id] if bos else []
    whole = start + tokenizer.encode(context + continuation, add_special_tokens=False)
    begin = len(start + tokenizer.encode(context, add_special_tokens=False))
    scores = model(torch.tensor([whole])).logits[0].float().log_softmax(-1)
    total = sum(float(scores[i - 1, whole[i]]) for i in range(begin, len(whole)))
    greedy = all(int(scores[i - 1].argmax()) == whole[i] for i in range(begin, len(whole)))
    return total, greedy


@torch.no_grad()
def plain_response(model, tokenizer, prompt, count, bos=True):
    tokens = ([tokenizer.bos_token_id] if bos else []) + tokenizer.encode(
        prompt, add_special_tokens=False
    )
    response = []
    while len(response) < count:
        best = int(model(torch.tensor([tokens + response])).logits[0, -1].argmax())
        response.append(best)
        if best == tokenizer.eos_token_id:
            break
    return response


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("batch", [1, 8, None])
def test_likelihoods_are_those_of_a_plain_forward_pass(ready, tokenizer, architecture, bos, batch):
    model = make(architecture, **ARCHITECTURES[architecture])
    pairs = choices()
    found = ready(model, batch=batch, bos=bos).loglikelihood(ask("loglikelihood", pairs))
    for pair, (score, greedy) in zip(pairs, found, strict=True):
        expected, expected_greedy = plain_likelihood(model, tokenizer, *pair, bos)
        assert score == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert greedy is expected_greedy


def test_what_greedy_decoding_says_is_found_greedy(ready, tokenizer):
    model = make()
    asked, expected = [], []
    for prompt in ("One and", "Two or three"):
        context = [tokenizer.bos_token_id, *tokenizer.encode(prompt, add_special_tokens=False)]
        said = plain_response(model, tokenizer, prompt, 4)
        other = [*said[:2], said[2] % 200 + 50, said[3]]
        asked += [(None, context, said), (None, context, said[:1]), (None, context, other)]
        expected += [True, True, False]
    assert [greedy for _, greedy in ready(model)._loglikelihood_tokens(asked)] == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("batch", [1, 5, None])
def test_greedy_responses_are_those_of_a_plain_loop(ready, tokenizer, architecture, batch):
    model = make(architecture, **ARCHITECTURES[architecture])
    prompts = [context for context, _ in choices(count=7, options=1)]
    rules = {"until": [], "max_gen_toks": 14, "do_sample": False}
    lm = ready(model, batch=batch)
    found = lm.generate_until(ask("generate_until", [(p, rules) for p in prompts]))
    for prompt, response in zip(prompts, found, strict=True):
        tokens = plain_response(model, tokenizer, prompt, 14)
        assert response == tokenizer.decode(tokens, skip_special_tokens=True)


def test_eos_and_stop_texts_end_a_response_and_are_not_part_of_it(ready, tokenizer):
    model = make()
    prompts = [context for context, _ in choices(count=9, options=1)]
    plain = [plain_response(model, tokenizer, p, 40) for p in prompts]
    texts = [tokenizer.decode(t, skip_special_tokens=True) for t in plain]
    stop = next(c for t in texts for c in t[3:] if sum(c in other for other in texts) < 9)
    rules = {"until": [stop], "max_gen_toks": 40, "do_sample": False}
    found = ready(model).generate_until(ask("generate_until", [(p, rules) for p in prompts]))
    assert found == [t.split(stop)[0] for t in texts]
    # the most likely token everywhere is EOS: nothing is said
    ending = make()
    ending.lm_head.weight.data[:] = 0
    ending.lm_head.weight.data[tokenizer.eos_token_id] = 50 * ending.model.norm.weight
    ended = ready(ending, identity={"weights": "ending"})
    silent = {"until": [], "max_gen_toks": 40, "do_sample": False}
    responses = ended.generate_until(ask("generate_until", [(p, silent) for p in prompts]))
    expected = [plain_response(ending, tokenizer, p, 40) for p in prompts]
    assert responses == [tokenizer.decode(t, skip_special_tokens=True) for t in expected]
    assert any(len(t) == 1 for t in expected)


def sampled(temperature=1.0, **more):
    return {"until": [], "max_gen_toks": 6, "do_sample": True, "temperature": temperature, **more}


def test_samples_of_one_prompt_differ_and_do_not_depend_on_the_batch(ready, tmp_path):
    model = make(scale=0.05)
    prompts = [context for context, _ in choices(count=4, options=1)]
    requests = [
        r for r in ask("generate_until", [(p, sampled()) for p in prompts]) for _ in "12345"
    ]
    found = {}
    for batch in (1, 3, None):
        lm = ready(model, batch=batch, store=Store(tmp_path / str(batch)))
        found[batch] = lm.generate_until(requests)
    assert found[1] == found[3] == found[None]
    assert len(set(found[1])) > 10
    other = ready(model, seed=2, store=Store(tmp_path / "other")).generate_until(requests)
    assert other != found[1]


def test_a_low_temperature_and_the_first_token_alone_are_greedy(ready, tmp_path):
    model = make()
    prompts = [context for context, _ in choices(count=4, options=1)]
    greedy = {"until": [], "max_gen_toks": 6, "do_sample": False}
    expected = ready(model).generate_until(ask("generate_until", [(p, greedy) for p in prompts]))
    for how in ({"temperature": 1e-4}, {"top_p": 1e-6}):
        lm = ready(model, store=Store(tmp_path / str(how)))
        requests = ask("generate_until", [(p, sampled() | how) for p in prompts])
        assert lm.generate_until(requests) == expected


def test_a_prompt_that_is_cut_is_counted_and_one_that_cannot_fit_is_refused(ready, tokenizer):
    model = make()
    long = " ".join(WORDS * 40)
    lm = ready(model)
    rules = {"until": [], "max_gen_toks": 10, "do_sample": False}
    lm.generate_until(ask("generate_until", [("short", rules), (long, rules)]))
    lm.loglikelihood(ask("loglikelihood", [(long, " yes"), ("short", " no")], "other"))
    assert dict(lm.truncated) == {"toy": {1}, "other": {0}}
    whole = {"until": [], "max_gen_toks": CONTEXT, "do_sample": False}
    with pytest.raises(UserError, match="512 tokens"):
        lm.generate_until(ask("generate_until", [("short", whole)]))


def test_nan_is_named_and_never_a_score(ready):
    model = make()
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(UserError, match=r"document 0 of toy with NaN"):
        ready(model).loglikelihood(ask("loglikelihood", [("One", " two")]))
    rules = {"until": [], "max_gen_toks": 3, "do_sample": False}
    with pytest.raises(UserError, match="NaN"):
        ready(model).generate_until(ask("generate_until", [("One", rules)]))


def test_out_of_memory_halves_the_batch_and_goes_on(ready, monkeypatch):
    model = make()
    pairs = choices()
    expected = ready(model, batch=1).loglikelihood(ask("loglikelihood", pairs))
    plain, sizes = model.forward, []

    def small(*args, **kwargs):
        sizes.append(kwargs["input_ids"].shape[0])
        if sizes[-1] > 9:
            raise torch.OutOfMemoryError("none left")
        return plain(*args, **kwargs)

    monkeypatch.setattr(model, "forward", small)
    lm = ready(model, tokens=10**6, identity={"weights": "small"})
    found = lm.loglikelihood(ask("loglikelihood", pairs))
    assert max(sizes) > 9
    sizes.clear()
    lm.loglikelihood(ask("loglikelihood", [(f"{before} again", after) for before, after in pairs]))
    assert max(sizes) <= 9, "what is as large is not tried again"
    for (score, greedy), (wanted, wanted_greedy) in zip(found, expected, strict=True):
        assert score == pytest.approx(wanted, rel=1e-5)
        assert greedy == wanted_greedy


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: out of memory", 2),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_memory_that_others_find_exhausted_halves_the_batch_too(ready, monkeypatch, error):
    model = make()
    plain = model.forward

    def small(*args, **kwargs):
        if kwargs["input_ids"].shape[0] > 9:
            raise error
        return plain(*args, **kwargs)

    monkeypatch.setattr(model, "forward", small)
    pairs = choices()
    assert len(ready(model, tokens=10**6).loglikelihood(ask("loglikelihood", pairs))) == len(pairs)


def test_an_error_that_is_none_of_memory_is_raised(ready, monkeypatch):
    model = make()

    def broken(*_, **__):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(model, "forward", broken)
    with pytest.raises(RuntimeError, match="do not match"):
        ready(model).loglikelihood(ask("loglikelihood", choices()))


def test_what_does_not_fit_when_scored_may_fit_when_it_generates(ready, monkeypatch):
    """Scoring is limited by the logits of all tokens, generating by their keys and values."""
    model = make()
    plain, sizes = model.forward, []

    def small(*args, **kwargs):
        sizes.append(kwargs["input_ids"].shape[0])
        if kwargs["logits_to_keep"] == 0 and sizes[-1] > 9:
            raise torch.OutOfMemoryError("none left")
        return plain(*args, **kwargs)

    monkeypatch.setattr(model, "forward", small)
    lm = ready(model, tokens=10**6)
    lm.loglikelihood(ask("loglikelihood", choices()))
    sizes.clear()
    rules = {"until": [], "max_gen_toks": 3, "do_sample": False}
    prompts = [context for context, _ in choices(count=12, options=1, seed=1)]
    lm.generate_until(ask("generate_until", [(prompt, rules) for prompt in prompts]))
    assert max(sizes) == 12
