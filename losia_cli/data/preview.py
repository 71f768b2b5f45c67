"""The training samples as the model will see them: shown, doubted, measured."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset
    from rich.console import Group
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label of a token on which there is no loss
_INPUTS = ("input_ids", "chosen_input_ids", "rejected_input_ids")
_CUT = "\ufffd"  # what the first bytes of a character decode to
_DROPPED_SHOWN = 3  # samples
_SHOWN = 1500  # characters of a stretch of text, beyond which its middle is left out


@dataclass(frozen=True)
class _Sequence:
    """One text of a sample: its tokens, and of each whether there is a loss on it."""

    title: str
    ids: list[int]
    supervised: list[bool]

    def targets(self) -> list[int]:
        return [token for token, target in zip(self.ids, self.supervised, strict=True) if target]


def preview(
    example: Mapping[str, Any],
    tokenizer: "PreTrainedTokenizerBase",
    stage: str,
    title: str = "first sample",
) -> "Group":
    """A tokenized sample to print: its text with special tokens, and what of it is supervised.

    Supervised text stands between ⟦ and ⟧, the rest is dim. Below: how many tokens, what the text
    begins with, and whether the sample teaches to stop.

    Args:
        example: a row of what LLaMA-Factory made of the data set.
        tokenizer: the one it was tokenized with.
        stage: LLaMA-Factory's: pt, sft, dpo, rm or kto.
        title: what the sample is called.
    """
    from rich.console import Group
    from rich.text import Text

    lines: list[Text] = []
    for sequence in _sequences(example, tokenizer, stage, title):
        lines += [Text(f"{sequence.title} (supervised: ⟦ ⟧)", "bold"), _text(sequence, tokenizer)]
        lines += [Text(f"  {remark}") for remark in _remarks(sequence, tokenizer)]
    return Group(*lines)


def begins_with_bos(
    example: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase", stage: str
) -> bool:
    """Whether a tokenized sample begins with BOS, as evaluation should then."""
    first = next(iter(_sequences(example, tokenizer, stage))).ids[:1]
    return tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]


def _says_nothing(targets: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> bool:
    return bool(targets) and not tokenizer.decode(targets, skip_special_tokens=True).strip()


def sample_warnings(
    dataset: Iterable[Mapping[str, Any]],
    tokenizer: "PreTrainedTokenizerBase",
    stage: str,
    limit: int = 200,
) -> list[str]:
    """What the first `limit` tokenized samples will fail to teach, or teach wrongly: sentences."""
    samples = [_sequences(example, tokenizer, stage) for example in islice(dataset, limit)]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id

    def count(test: Callable[[_Sequence], bool]) -> int:
        return sum(any(test(sequence) for sequence in sample) for sample in samples)

    def warnings() -> Iterator[str]:
        some = f"of the first {len(samples)} samples"
        if blank := count(lambda sequence: not sequence.targets()):
            why = "their prompts leave no room in cutoff_len"
            yield f"{blank} {some} have no supervised token, and teach nothing: {why}"
        if empty := count(lambda sequence: _says_nothing(sequence.targets(), tokenizer)):
            yield f"{empty} {some} have an empty answer, and teach to say nothing"
        if not count(lambda sequence: eos in sequence.targets()):
            stop = f"none {some} has EOS ({tokenizer.eos_token}) as a supervised token"
            yield f"{stop}: the model will not learn to stop; {_without_eos(tokenizer, stage)}"
        if double := count(lambda sequence: bos is not None and sequence.ids[:2] == [bos, bos]):
            which = f"({tokenizer.bos_token}), the template's and one in the text"
            yield f"{double} {some} begin with two BOS {which}: take it out of the text"
        if _adds_bos(tokenizer) and (bare := count(lambda sequence: sequence.ids[:1] != [bos])):
            rule = f"BOS ({tokenizer.bos_token}), which the tokenizer puts before texts by itself"
            advice = "evaluation will differ from training; choose a template that begins with BOS"
            yield f"{bare} {some} do not begin with {rule}: {advice}"

    return list(warnings()) if samples else []


@dataclass(frozen=True)
class Lengths:
    """How long the samples are, in tokens.

    Attributes:
        rows: the samples.
        tokens: all of their tokens; both answers' of a pair.
        longest: those of the longest text.
        mean: `tokens / rows`.
        full: the samples that fill `cutoff`, and were cut there or just fit.
        cutoff: LLaMA-Factory's cutoff_len.
    """

    rows: int
    tokens: int
    longest: int
    mean: float
    full: int
    cutoff: int

    def __str__(self) -> str:
        size = (
            f"{self.rows:,} samples of {self.mean:,.0f} tokens on average, {self.tokens:,} in all"
        )
        full = f"{self.full:,} fill cutoff_len ({self.cutoff:,}): cut there, or just fitting"
        return f"{size}; the longest has {self.longest:,}; {full}"


def lengths(dataset: "Dataset", cutoff: int) -> Lengths:
    """Measure a tokenized dataset, without decoding its rows.

    Args:
        dataset: what LLaMA-Factory made of the data set, not streamed.
        cutoff: its cutoff_len. Packed rows all fill it.
    """
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    columns = [name for name in _INPUTS if name in dataset.column_names]
    tokens = longest = full = 0
    for batch in dataset.select_columns(columns).with_format("arrow").iter(batch_size=10_000):
        texts = [pc.list_value_length(batch[name]) for name in columns]
        longer = pc.max_element_wise(*texts)
        tokens += sum(pc.sum(text).as_py() for text in texts)
        longest = max(longest, pc.max(longer).as_py())
        full += pc.sum(pc.greater_equal(longer, cutoff)).as_py()
    rows = len(dataset)
    return Lengths(rows, tokens, longest, tokens / max(rows, 1), full, cutoff)


def dropped(before: int, after: int, which: Iterable[str] = ()) -> str:
    """How many samples LLaMA-Factory dropped, and for what.

    Args:
        before: rows of the data set.
        after: rows it was tokenized to, unpacked.
        which: the first of them, as far as they are known, each with what is wrong.
    """
    if before == after:
        return f"all {before:,} samples are kept"
    why = (
        "LLaMA-Factory drops those whose questions and answers do not take turns, "
        "and those where a response is missing"
    )
    said = f"{before - after:,} of {before:,} samples are dropped: {why}"
    return "".join([said, *(f"\n  {one}" for one in islice(which, _DROPPED_SHOWN))])


def _sequences(
    example: Mapping[str, Any],
    tokenizer: "PreTrainedTokenizerBase",
    stage: str,
    title: str = "",
) -> list[_Sequence]:
    if stage in ("dpo", "rm"):
        return [
            _labelled(f"{title}, {side}", example, f"{side}_") for side in ("chosen", "rejected")
        ]
    if stage == "kto":
        side = "wanted" if example["kto_tags"] else "unwanted"
        return [_labelled(f"{title}, {side}", example)]
    if stage == "pt":
        # The collator makes the labels from the tokens, and masks whatever equals padding.
        ids = list(example["input_ids"])
        return [_Sequence(title, ids, [token != tokenizer.pad_token_id for token in ids])]
    return [_labelled(title, example)]


def _labelled(title: str, example: Mapping[str, Any], prefix: str = "") -> _Sequence:
    labels = example[f"{prefix}labels"]
    ids = list(example[f"{prefix}input_ids"])
    return _Sequence(title, ids, [label != IGNORED for label in labels])


def _text(sequence: _Sequence, tokenizer: "PreTrainedTokenizerBase") -> "Text":
    from rich.text import Text

    text = Text()
    for supervised, piece in _stretches(sequence, tokenizer):
        shown = _shorten(piece)
        text.append(f"⟦{shown}⟧" if supervised else shown, None if supervised else "dim")
    return text


def _stretches(
    sequence: _Sequence, tokenizer: "PreTrainedTokenizerBase"
) -> Iterator[tuple[bool, str]]:
    """The text in stretches that are supervised or not.

    Each is what the text grows by with its tokens: decoded alone, a stretch would lose the space
    it begins with. A character cut in two shows whole in the later one.
    """
    end, before = 0, ""
    for supervised, group in groupby(sequence.supervised):
        end += len(list(group))
        after = tokenizer.decode(
            sequence.ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        yield supervised, after[len(before.rstrip(_CUT)) :]
        before = after


def _shorten(text: str) -> str:
    if len(text) <= _SHOWN:
        return text
    half = _SHOWN // 2
    return f"{text[:half]} [... {len(text) - 2 * half:,} characters ...] {text[-half:]}"


def _remarks(sequence: _Sequence, tokenizer: "PreTrainedTokenizerBase") -> Iterator[str]:
    targets = sequence.targets()
    yield f"{len(sequence.ids):,} tokens, {len(targets):,} of them supervised"
    yield _beginning(sequence.ids, tokenizer)
    if tokenizer.eos_token_id not in targets:
        yield f"EOS ({tokenizer.eos_token}) is not supervised"
    elif targets[-1] == tokenizer.eos_token_id:
        yield f"the last supervised token is EOS ({tokenizer.eos_token})"
    else:
        last = tokenizer.decode(targets[-1:])
        yield f"EOS ({tokenizer.eos_token}) is supervised; the last supervised token is {last!r}"


def _beginning(ids: list[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    bos = tokenizer.bos_token_id
    if bos is None:
        return "the tokenizer has no BOS"
    if ids[:2] == [bos, bos]:
        return f"begins with BOS twice ({tokenizer.bos_token}{tokenizer.bos_token})"
    begins = "begins" if ids[:1] == [bos] else "does not begin"
    return f"{begins} with BOS ({tokenizer.bos_token})"


def _adds_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("x")["input_ids"][:1] == [bos]


def _without_eos(tokenizer: "PreTrainedTokenizerBase", stage: str) -> str:
    """Why no EOS is supervised, and what to do."""
    if stage == "pt" and tokenizer.pad_token_id == tokenizer.eos_token_id:
        return (
            "it is the pad token too, and padding is masked: give the tokenizer another pad token"
        )
    return "choose a template that ends responses with it, or a cutoff_len that leaves room for it"
