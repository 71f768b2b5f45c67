"""Prompts that begin alike are read once, each group of them, and nothing else changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losia_cli.evaluation import reading
from losia_cli.evaluation.generation import Rules
from losia_cli.evaluation.reading import WORTH_SHARING, read, read_prompts
from tests.models import VOCABULARY, tiny

TOKENS = st.integers(3, VOCABULARY - 1)


@st.composite
def batches(draw):
    """Prompts of one to three groups, each with its beginning, in any order."""
    openings = draw(st.lists(st.lists(TOKENS, min_size=1, max_size=50), min_size=1, max_size=3))
    return draw(
        st.lists(
            st.tuples(st.sampled_from(openings), st.lists(TOKENS, max_size=6)).map(
                lambda parts: parts[0] + parts[1]
            ),
            min_size=1,
            max_size=7,
        )
    )


@torch.inference_mode()
def answers(model, prompts, share):
    """The logits after each prompt and after a further token, and how many tokens were read."""
    past, logits, tokens = read_prompts(model, prompts, 1, share=share)
    return torch.cat([logits, read(model, past, [[9]] * len(prompts), last=True)]), tokens


@settings(max_examples=60, deadline=None)
@given(batches())
def test_sharing_changes_what_is_read_and_nothing_else(prompts):
    model = tiny().eval()
    shared, fewer = answers(model, prompts, True)
    plain, tokens = answers(model, prompts, False)
    torch.testing.assert_close(shared, plain)
    assert tokens == sum(map(len, prompts))
    assert fewer <= tokens


def test_two_subjects_in_a_batch_are_read_once_each():
    first, second = [5, *range(3, 50)], [6, *range(3, 60)]
    prompts = [[*opening, 7, last] for opening in (first, second) for last in range(3, 9)]
    _, tokens = answers(tiny().eval(), prompts, True)
    assert tokens == len(first) + 1 + len(second) + 1 + len(prompts)


@pytest.mark.parametrize(
    ("prompts", "worth_it"),
    [
        ([[*range(WORTH_SHARING), 40], [*range(WORTH_SHARING), 41]], True),
        ([[*range(WORTH_SHARING - 1), 40], [*range(WORTH_SHARING - 1), 41]], False),
        ([[*range(40)]], False),
        ([[*range(40)], [*range(1, 40)]], False),
        ([[3], [3]], False),
    ],
)
def test_what_is_worth_sharing(prompts, worth_it):
    heads, _ = reading._beginnings(prompts)
    assert bool(heads) is worth_it


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["</s>", "a", " b", "\n", "\n\nQ", "ab", "é", "[", " "]), max_size=12),
    st.lists(st.sampled_from(["\n\n", "a b", "Q:", "é", " ", "</s>", ""]), max_size=3),
)
def test_a_token_that_cannot_end_a_stop_text_is_not_looked_into(pieces, stop):
    """What ends a response is what would, were every token's tail decoded."""
    rules = Rules(12, stop=tuple(stop))
    data = [piece.encode() for piece in pieces]

    def decode(tokens):  # as byte-level tokenizers do, of which a token may be half a character
        return b"".join(bytes_of[token] for token in tokens).decode(errors="replace")

    split = [
        byte for piece in data for byte in ((piece[:1], piece[1:]) if piece[0] > 127 else (piece,))
    ]
    bytes_of = dict(enumerate(split))
    for end in range(1, len(split) + 1):
        whole = decode(range(end))
        said = rules.ended(list(range(end)), decode)
        assert said == any(text and text in whole for text in stop)
        if said:
            break
