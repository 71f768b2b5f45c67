"""A token at a time: the same numbers as reading all at once, and no key is copied."""

import pytest
import torch
from transformers import AutoConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from losia_cli.errors import UserError
from losia_cli.evaluation import decoding
from losia_cli.evaluation.reading import read, start
from tests.models import ARCHITECTURES, tiny

PROMPTS = [[3, 4, 5, 6], [7, 8], [9]]
FURTHER = [[10, 11, 12, 13, 14, 15, 16], [20, 21, 22, 23, 24, 25, 26], [30, 31, 32, 33, 34, 35, 36]]


@torch.inference_mode()
def step_by_step(model, prompts, further, keep=None):
    """The logits after each further token, all rows or, from the middle on, those of `keep`."""
    past, found = start(model, len(prompts)), []
    read(model, past, prompts, last=True)
    decoding.expect_tokens(past.cache, len(further[0]))
    for step in range(len(further[0])):
        if keep and step == 3:
            past.select(keep)
            further = [further[row] for row in keep]
        found.append(read(model, past, [row[step : step + 1] for row in further], last=True))
    return found


@torch.inference_mode()
def at_once(model, tokens, last):
    """The logits after the last tokens of one row, by transformers alone."""
    return model(torch.tensor([tokens])).logits[0, -last:]


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_what_reading_all_at_once_gives(monkeypatch, architecture, heads):
    """With buffers that fill up, padding on the left, and heads that share keys or do not."""
    monkeypatch.setattr(decoding, "_ROOM", 2)
    model = tiny(architecture, num_key_value_heads=heads).eval()
    found = step_by_step(model, PROMPTS, FURTHER)
    for row, (prompt, further) in enumerate(zip(PROMPTS, FURTHER, strict=True)):
        ours = torch.stack([logits[row, 0] for logits in found])
        torch.testing.assert_close(ours, at_once(model, prompt + further, len(further)))


def test_rows_that_are_left_go_on():
    model, keep = tiny().eval(), [2, 0, 0]
    found = step_by_step(model, PROMPTS, FURTHER, keep)
    for place, row in enumerate(keep):
        ours = torch.stack([logits[place, 0] for logits in found[3:]])
        torch.testing.assert_close(ours, at_once(model, PROMPTS[row] + FURTHER[row], 4))


@torch.inference_mode()
def test_no_key_or_value_moves_while_there_is_room():
    model = tiny().eval()
    past, places = start(model, 2), set()
    read(model, past, PROMPTS[:2], last=True)
    decoding.expect_tokens(past.cache, decoding._ROOM)
    for token in range(decoding._ROOM):
        read(model, past, [[3 + token % 9]] * 2, last=True)
        places.add(tuple(t.data_ptr() for one in past.cache.layers for t in (one.keys, one.values)))
    assert len(places) == 1


def held(past):
    """Bytes of all that the layers hold on to."""
    tensors = [
        t for one in past.cache.layers for t in (one.keys, one.values, *(one._buffers or ()))
    ]
    return sum({t.data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@torch.inference_mode()
def test_there_is_room_for_what_is_expected_and_no_more():
    """Not in what scores choices, nor for rows that have left, nor beyond the last token."""
    model = tiny().eval()
    past = start(model, 3)
    read(model, past, [[5, 6, 7, 8]] * 3, last=True)
    one = held(past) // 4
    read(model, past, [[9]] * 3, last=False)
    assert held(past) == 5 * one
    decoding.expect_tokens(past.cache, 7)
    read(model, past, [[9]] * 3, last=True)
    assert held(past) == 12 * one
    past.select([0])
    assert held(past) == 6 * one // 3


def test_a_state_that_cannot_be_branched_is_refused():
    config = AutoConfig.for_model(
        "lfm2", num_hidden_layers=2, layer_types=["conv", "full_attention"]
    )
    with pytest.raises(UserError, match="type lfm2 keep a state that cannot be branched"):
        decoding.empty_cache(config)


def test_others_attend_as_before():
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with pytest.raises(ZeroDivisionError), decoding.sharing_heads():
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is decoding.attend
        raise ZeroDivisionError
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
