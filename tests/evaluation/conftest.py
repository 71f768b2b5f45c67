"""Tiny models with a byte-level tokenizer, ready to be evaluated."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from losia_cli.evaluation import settle
from losia_cli.evaluation.batches import Limit
from losia_cli.evaluation.model import ResumableLM
from losia_cli.evaluation.store import Store
from tests.e2e.conftest import SIZES, _tokenizer

CONTEXT = 512
SHARED = Path(__file__).parents[3] / "shared" / "data"


class Unwatched:
    def begin(self, requests):
        pass

    def advance(self, requests, tokens):
        pass


def make(name: str = "llama", seed: int = 0, scale: float = 0.2, **changes):
    config = AutoConfig.for_model(name, **{**SIZES, "max_position_embeddings": CONTEXT, **changes})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, scale)
    return model.eval()


@pytest.fixture(scope="module")
def on_the_cpu():
    """For tests that fork, which a process that has begun to use a GPU cannot."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(settle, "_device", lambda: "cpu")
        yield


@pytest.fixture(scope="session")
def tokenizer():
    return _tokenizer()


@pytest.fixture
def ready(tokenizer, tmp_path):
    """Makes a `ResumableLM` of a tiny model."""

    def build(model, batch=None, tokens=4096, bos=True, **changes):
        given = {
            "identity": {"weights": "tiny"},
            "bos": bos,
            "limit": Limit(tokens, 4 * tokens, batch),
            "store": Store(tmp_path / "store"),
            "seed": 1,
            "letters": (),
            "watcher": Unwatched(),
            **changes,
        }
        return ResumableLM(model, tokenizer, **given)

    return build
