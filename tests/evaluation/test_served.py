"""A backend that batches by itself, behind the store: here the harness's own model."""

import json
import math
import sys
from types import ModuleType

import pytest
from lm_eval.models.huggingface import HFLM

from losia_cli.errors import UserError
from losia_cli.evaluation import loading, served
from losia_cli.evaluation.checkpoint import Checkpoint
from losia_cli.evaluation.served import StoredLM
from losia_cli.evaluation.store import Store
from tests.evaluation.conftest import Unwatched, make
from tests.evaluation.test_model import ask, choices


class Counting(HFLM):
    """The harness's model; counts what it is asked."""

    asked = 0

    def loglikelihood(self, requests, disable_tqdm=False):
        self.asked += len(requests)
        return super().loglikelihood(requests, disable_tqdm)

    def generate_until(self, requests, disable_tqdm=False):
        self.asked += len(requests)
        return super().generate_until(requests, disable_tqdm)


@pytest.fixture
def stored(tokenizer, tmp_path, monkeypatch):
    """Makes a stored model with pieces of 5 requests, on one store."""
    monkeypatch.setattr(served, "PIECE", 5)

    def build(weights="tiny"):
        inner = Counting(pretrained=make(), tokenizer=tokenizer, batch_size=1)
        store = Store(tmp_path / "store")
        return StoredLM(inner, identity={"weights": weights}, store=store, watcher=Unwatched())

    return build


def test_answers_are_the_backends_and_are_asked_for_once(stored):
    pairs = ask("loglikelihood", choices(count=3))
    rules = {"until": [], "max_gen_toks": 4, "do_sample": False}
    prompts = ask("generate_until", [(context, rules) for context, _ in choices(count=7)])
    first = stored()
    expected = first.model.loglikelihood(pairs), first.model.generate_until(prompts)
    first.model.asked = 0
    assert (first.loglikelihood(pairs), first.generate_until(prompts)) == expected
    assert first.model.asked == len(pairs) + len(prompts)
    again = stored()
    assert (again.loglikelihood(pairs), again.generate_until(prompts)) == expected
    assert again.model.asked == 0


def test_what_was_answered_before_a_stop_is_kept(stored, monkeypatch):
    pairs = ask("loglikelihood", choices(count=3))  # 12 requests: pieces of 5, 5, 2
    cut = stored()
    plain = cut.model.loglikelihood

    def dies(requests, disable_tqdm=False):
        if cut.model.asked >= 5:
            raise KeyboardInterrupt
        return plain(requests, disable_tqdm)

    monkeypatch.setattr(cut.model, "loglikelihood", dies)
    with pytest.raises(KeyboardInterrupt):
        cut.loglikelihood(pairs)
    rest = stored()
    rest.loglikelihood(pairs)
    assert rest.model.asked == 7


def test_other_weights_are_asked_anew(stored):
    pairs = ask("loglikelihood", choices(count=1))
    stored().loglikelihood(pairs)
    other = stored("others")
    other.loglikelihood(pairs)
    assert other.model.asked == len(pairs)


def test_nan_is_named_and_never_a_score(stored, monkeypatch):
    lm = stored()
    monkeypatch.setattr(lm.model, "loglikelihood", lambda *_, **__: [(math.nan, False)])
    with pytest.raises(UserError, match="document 0 of toy with NaN"):
        lm.loglikelihood(ask("loglikelihood", [("One", " two")]))


def test_a_missing_backend_is_one_sentence(monkeypatch):
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="vLLM is not installed"):
        loading.expect_vllm()


@pytest.mark.parametrize(("rank", "room"), [(1, 16), (16, 16), (17, 32), (64, 64), (320, 512)])
def test_vllm_is_told_of_an_adapters_rank(monkeypatch, tmp_path, rank, room):
    told = {}
    backend = ModuleType("vllm_causallms")
    backend.VLLM = lambda **given: told.update(given)
    monkeypatch.setitem(sys.modules, "lm_eval.models.vllm_causallms", backend)
    settings = {"dtype": "auto", "bos": True, "seed": 1}
    adapter = tmp_path / "adapter_config.json"
    adapter.write_text(json.dumps({"r": rank}))
    found = Checkpoint("run", tmp_path, tmp_path, adapter=tmp_path)
    loading.load_vllm(found, settings)
    assert told["max_lora_rank"] == room
    adapter.write_text(json.dumps({"r": rank, "use_dora": True}))
    with pytest.raises(UserError, match=r"no DoRA adapter.*losia merge run"):
        loading.load_vllm(found, settings)
