"""On a GPU: the processor's answers, and nothing that mixes devices."""

import pytest
import torch

from losia_cli.evaluation.store import Store
from tests.evaluation.conftest import make
from tests.evaluation.test_model import ARCHITECTURES, ask, choices
from tests.pretended_gpu import pretended_gpu, to_pretended_gpu

GREEDY = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}
SAMPLED = {**GREEDY, "do_sample": True, "temperature": 0.7, "top_p": 0.9}


def answers(model, ready, folder):
    lm = ready(model, store=Store(folder))
    pairs = choices(count=4)
    prompts = [context for context, _ in pairs]
    return [
        lm.loglikelihood(ask("loglikelihood", pairs)),
        lm.loglikelihood_rolling(ask("loglikelihood_rolling", [(text,) for text in prompts])),
        *(
            lm.generate_until(ask("generate_until", [(text, how) for text in prompts]))
            for how in (GREEDY, SAMPLED)
        ),
    ]


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_a_gpu_gives_the_processors_answers(architecture, ready, monkeypatch, tmp_path):
    expected = answers(
        make(architecture, **ARCHITECTURES[architecture]), ready, tmp_path / "processor"
    )
    model = make(architecture, **ARCHITECTURES[architecture])
    to_pretended_gpu(model)
    # which knows no tensors without a version
    monkeypatch.setattr(torch._C, "_InferenceMode", lambda _: torch.no_grad())
    with pretended_gpu():
        assert answers(model, ready, tmp_path / "gpu") == expected
