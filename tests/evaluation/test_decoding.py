"""A token at a time: the same numbers as reading all at once, and no key is copied."""

import pytest
import torch
from transformers import AutoConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from losia_cli.errors import UserError
from losia_cli.evaluation import decoding, reading
from losia_cli.evaluation.reading import read, start
from tests.models import ARCHITECTURES, tiny

PROMPTS = [[3, 4, 5, 6], [7, 8], [9]]
FURTHER = [[10, 11, 12, 13, 14, 15, 16], [20, 21, 22, 23, 24, 25, 26], [30, 31, 32, 33, 34, 35, 36]]


@torch.inference_mode()
def step_by_step(model, prompts, further, keep=None, room=11):
    """The logits after each further token, all rows or, from the middle on, those of `keep`."""
    past, found = start(model, len(prompts), room), []
    read(model, past, prompts, last=True)
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


@pytest.mark.parametrize(("heads", "room"), [(1, 11), (2, 6), (4, 0), (4, 11)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_what_reading_all_at_once_gives(architecture, heads, room):
    """With room for all, some or none, padding on the left, and heads that share keys or do not."""
    model = tiny(architecture, num_key_value_heads=heads).eval()
    found = step_by_step(model, PROMPTS, FURTHER, room=room)
    for row, (prompt, further) in enumerate(zip(PROMPTS, FURTHER, strict=True)):
        ours = torch.stack([logits[row, 0] for logits in found])
        torch.testing.assert_close(ours, at_once(model, prompt + further, len(further)))


@pytest.mark.parametrize("room", [5, 11])
def test_rows_that_are_left_go_on(room):
    model, keep = tiny().eval(), [2, 0, 0]
    found = step_by_step(model, PROMPTS, FURTHER, keep, room)
    for place, row in enumerate(keep):
        ours = torch.stack([logits[place, 0] for logits in found[3:]])
        torch.testing.assert_close(ours, at_once(model, PROMPTS[row] + FURTHER[row], 4))


@pytest.mark.parametrize("at_once", [3, 7, 12])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_prompt_that_is_read_in_parts_is_read_alike(monkeypatch, architecture, at_once):
    """Also where a row's first part is padding."""
    model = tiny(architecture).eval()
    rows = [prompt + further for prompt, further in zip(PROMPTS, FURTHER, strict=True)] + [[5]]
    whole = [parts_of(model, rows, room)[0] for room in (0, 20)]
    monkeypatch.setattr(reading, "_AT_ONCE", at_once)
    for room in (0, 20):
        logits, passes = parts_of(model, rows, room)
        assert passes == -(-11 // max(1, at_once // 4))
        for expected in whole:
            torch.testing.assert_close(logits, expected)


@torch.inference_mode()
def parts_of(model, rows, room):
    """The logits after each row and after a further token, and the passes that the rows took."""
    past, passes = start(model, len(rows), room), []
    hook = model.register_forward_pre_hook(lambda *_: passes.append(1))
    first = read(model, past, rows, last=True)
    hook.remove()
    return torch.cat([first, read(model, past, [[9]] * len(rows), last=True)]), len(passes)


@torch.inference_mode()
def test_no_key_or_value_moves_while_there_is_room():
    model = tiny().eval()
    past, places = start(model, 2, 4 + 9), set()
    read(model, past, PROMPTS[:2], last=True)
    for token in range(9):
        read(model, past, [[3 + token]] * 2, last=True)
        places.add(tuple(t.data_ptr() for one in past.cache.layers for t in (one.keys, one.values)))
    assert len(places) == 1


def held(past):
    """Bytes of all that the layers hold on to."""
    tensors = [t for one in past.cache.layers for t in (one.keys, one.values)]
    return sum({t.data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@torch.inference_mode()
def test_there_is_room_for_what_is_going_to_be_read_and_no_more():
    """Neither for rows that have left, nor beyond the last token."""
    model, sizes = tiny().eval(), []
    for room in (0, 12):
        past = start(model, 3, room)
        read(model, past, [[5, 6, 7, 8]] * 3, last=True)
        sizes.append(held(past))
    assert sizes[1] == 3 * sizes[0]
    past.select([0, 2])
    assert held(past) == 2 * sizes[0]
    for _ in range(9):
        read(model, past, [[9]] * 2, last=True)
    assert held(past) == 13 * 2 * sizes[0] // 12


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
