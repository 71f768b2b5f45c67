"""lm-evaluation-harness's model, with batches that resume: the harness asks, this one answers.

The harness's own tokenization is kept (`HFLM`); how tokens are computed is ours: choices share
their question's cache, prompts their few-shot examples', responses leave the batch when they are
done, and every batch's responses are kept in the store as they come.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Protocol

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from torch import Tensor

from losia_cli.errors import UserError
from losia_cli.evaluation import letter
from losia_cli.evaluation.batches import Limit, cut
from losia_cli.evaluation.generation import NotANumber, Rules, generate
from losia_cli.evaluation.reading import Past, read, read_prompts
from losia_cli.evaluation.sampling import Sampling, chances
from losia_cli.evaluation.store import Store
from losia_cli.files import sha256_of

_TRIED_BELOW = 0.8  # of the tokens of a batch that did not fit
_LIKELIHOOD_TOKENS = 2048  # whose float32 log-softmax over the vocabulary is held at once


class Watcher(Protocol):
    """Told how far a suite is."""

    def begin(self, requests: int) -> None:
        """So many requests are now to be answered."""

    def advance(self, requests: int, tokens: int) -> None:
        """So many more are answered, by computing so many tokens (0: from the store)."""


Compute = Callable[[list["Question"]], tuple[list[list["Answer"]], int]]
Answer = list[Any]  # [log-likelihood, whether greedy] or [text], as JSON keeps it


@dataclass
class Question:
    """A prompt, and what is asked of it.

    Attributes:
        prompt: tokens.
        asks: the requests it answers, by their numbers.
        choices: the tokens of each choice to be scored, one for each of `asks`.
    """

    prompt: list[int]
    asks: list[int] = field(default_factory=list)
    choices: list[list[int]] = field(default_factory=list)

    @property
    def longest(self) -> int:
        """Tokens of the longest row, what is generated not counted."""
        return len(self.prompt) + max(map(len, self.choices), default=0)


class ResumableLM(HFLM):
    """A model and its tokenizer, for `simple_evaluate`.

    Args:
        model: a causal language model of transformers, on its device.
        tokenizer: its tokenizer.
        identity: all that decides a response beside the request: weights, versions, dtype.
        bos: whether every prompt begins with BOS.
        limit: how much goes into one batch.
        store: where responses are kept.
        seed: of sampling.
        letters: the tasks whose responses are right only if they are a single letter.
        watcher: told how far it is.

    Attributes:
        truncated: task -> the documents whose prompt was cut on the left to fit.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        identity: Mapping[str, Any],
        bos: bool,
        limit: Limit,
        store: Store,
        seed: int,
        letters: Collection[str],
        watcher: Watcher,
    ) -> None:
        super().__init__(
            pretrained=model, tokenizer=tokenizer, add_bos_token=bos, softmax_dtype="float32"
        )
        self.identity, self.limit, self.store, self.seed = dict(identity), limit, store, seed
        self.letters, self.watcher = letters, watcher
        self._too_many: dict[bool, float] = {}  # tokens of a batch, where it generates and not
        self._piece = lru_cache(maxsize=None)(lambda token: tokenizer.decode([token]))
        self.truncated: dict[str, set[int]] = defaultdict(set)
        self._asked: Sequence[Instance] = ()
        layers = getattr(model.config.get_text_config(), "layer_types", None) or []
        window = getattr(model.config.get_text_config(), "sliding_window", None)
        # A window counts positions, and a shared beginning leaves gaps between them.
        self._shares = window is None or (bool(layers) and set(layers) == {"full_attention"})
        ends = model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._eos = frozenset({tokenizer.eos_token_id, *ends} - {None})

    # ------------------------------------------------------------------ what the harness calls

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Tokens of a text; BOS in front if so set and not there, and never anything else."""
        tokens = self.tokenizer.encode(string, add_special_tokens=False)
        first = self.tokenizer.bos_token_id
        wanted = self.add_bos_token and add_special_tokens is not False
        return [first, *tokens] if wanted and tokens[:1] != [first] else tokens

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation, and whether greedy decoding gives it."""
        self._begin(requests)
        return super().loglikelihood(requests, disable_tqdm=True)

    @torch.inference_mode()
    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        questions: dict[tuple[int, ...], Question] = {}
        for number, (_text, context, choice) in enumerate(requests):
            prompt = self._fit(number, context, self.max_length + 1 - len(choice))
            question = questions.setdefault(tuple(prompt), Question(prompt))
            question.asks.append(number)
            question.choices.append(choice)
        answers = self._answer("likelihood", list(questions.values()), 0, self._score)
        return [(answers[n][0], answers[n][1]) for n in range(len(requests))]

    @torch.inference_mode()
    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """The response to each prompt, without what ended it."""
        self._begin(requests)
        alike: dict[str, dict[str, Question]] = {}
        rules: dict[str, Rules] = {}
        for number, request in enumerate(requests):
            context, settings = request.args
            kind = json.dumps([settings, request.task_name in self.letters], sort_keys=True)
            rule = rules.setdefault(kind, self._rules(request))
            if context not in alike.setdefault(kind, {}):
                prompt = self._fit(
                    number, self.tok_encode(context), self.max_length - rule.max_tokens
                )
                alike[kind][context] = Question(prompt)
            question = alike[kind][context]
            question.asks.append(number)
        responses = [""] * len(requests)
        for kind, questions in alike.items():
            answers = self._answer(
                kind,
                list(questions.values()),
                rules[kind].max_tokens,
                partial(self._respond, rules[kind]),
            )
            for number, answer in answers.items():
                responses[number] = answer[0]
        return responses

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        """The log-likelihood of whole texts, window by window."""
        self._asked = ()
        return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def count_truncated(self) -> int:
        """How many documents' prompts were cut since this was last asked."""
        count = sum(map(len, self.truncated.values()))
        self.truncated.clear()
        return count

    # ------------------------------------------------------------------ batches

    def _begin(self, requests: Sequence[Instance]) -> None:
        self._asked = requests
        self.watcher.begin(len(requests))

    def _answer(
        self, kind: str, questions: list[Question], new: int, compute: Compute
    ) -> dict[int, Answer]:
        batches = cut(
            sorted(questions, key=lambda q: (self._where(q.asks[0])[0], -q.longest, q.prompt)),
            rows=lambda question: len(question.asks),
            length=lambda question: question.longest + new,
            limit=self.limit.generating() if new else self.limit,
        )
        answers: dict[int, Answer] = {}
        for batch in batches:
            for question, found in zip(batch, self._kept(kind, batch, new, compute), strict=True):
                answers.update(zip(question.asks, found, strict=True))
        return answers

    def _kept(
        self, kind: str, batch: list[Question], new: int, compute: Compute
    ) -> list[list[Answer]]:
        """The answers to a batch: from the store, else computed and stored."""
        key = self._key(kind, batch)
        answers = self.store.get(key)
        if answers is None:
            rows = sum(len(question.asks) for question in batch)
            size = rows * (max(question.longest for question in batch) + new)
            too_large = len(batch) > 1 and size >= self._too_many.get(new > 0, math.inf)
            try:
                answers, tokens = (None, 0) if too_large else compute(batch)
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
            if answers is None:  # out of the handler, which keeps the failed call's tensors alive
                if not too_large:
                    self._too_many[new > 0] = _TRIED_BELOW * size
                    torch.cuda.empty_cache()
                return self._halved(kind, batch, new, compute)
            self.store.put(key, answers)
            self.watcher.advance(sum(len(question.asks) for question in batch), tokens)
        else:
            self.watcher.advance(sum(len(question.asks) for question in batch), 0)
        return answers

    def _halved(
        self, kind: str, batch: list[Question], new: int, compute: Compute
    ) -> list[list[Answer]]:
        if len(batch) == 1:
            task, document = self._where(batch[0].asks[0])
            raise UserError(
                f"document {document} of {task} alone does not fit into the memory: use a smaller"
                " dtype (--dtype bfloat16) or a larger machine"
            )
        middle = len(batch) // 2
        parts = (batch[:middle], batch[middle:])
        return [answer for part in parts for answer in self._kept(kind, part, new, compute)]

    def _key(self, kind: str, batch: list[Question]) -> str:
        asked = [[question.prompt, question.choices, len(question.asks)] for question in batch]
        return sha256_of([self.identity, self.seed, kind, asked])

    def _where(self, number: int) -> tuple[str, int]:
        """The task and the document of a request."""
        if number >= len(self._asked):
            return "the task", number
        request = self._asked[number]
        return str(request.task_name), request.doc_id or 0

    def _fit(self, number: int, prompt: list[int], room: int) -> list[int]:
        """The prompt, cut on the left to `room` tokens."""
        task, document = self._where(number)
        if room < 1:
            raise UserError(
                f"{task}: nothing of the prompt of document {document} fits beside what is asked,"
                f" since the model's context holds {self.max_length} tokens"
            )
        if len(prompt) > room:
            self.truncated[task].add(document)
        return prompt[-room:]

    # ------------------------------------------------------------------ computing

    def _score(self, batch: list[Question]) -> tuple[list[list[Answer]], int]:
        """`[log-likelihood, whether greedy]` of every choice of every question."""
        further = max(len(choice) for question in batch for choice in question.choices) - 1
        past, logits, tokens = self._read(batch, further)
        rows = [row for row, question in enumerate(batch) for _ in question.choices]
        choices = [choice for question in batch for choice in question.choices]
        opening = logits[:, -1].float().log_softmax(-1)
        firsts = torch.tensor([choice[0] for choice in choices], device=opening.device)
        scores = opening[rows, firsts].tolist()
        likely = (opening.argmax(-1)[rows] == firsts).tolist()
        del opening, logits  # a GPU has better use for them
        longer = [number for number, choice in enumerate(choices) if len(choice) > 1]
        if longer:
            past.select([rows[number] for number in longer])
            rest = read(self.model, past, [choices[n][:-1] for n in longer], last=False)
            for number, (score, greedy) in zip(
                longer, _likelihoods(rest, [choices[n][1:] for n in longer]), strict=True
            ):
                scores[number] += score
                likely[number] &= greedy
        answers = iter(zip(scores, likely, strict=True))
        found = [[list(next(answers)) for _ in question.choices] for question in batch]
        for question, replies in zip(batch, found, strict=True):
            for number, (score, _greedy) in zip(question.asks, replies, strict=True):
                if math.isnan(score):
                    raise self._not_a_number(number)
        return found, tokens + sum(map(len, choices))

    def _respond(self, rules: Rules, batch: list[Question]) -> tuple[list[list[Answer]], int]:
        """`[text]` of every sample of every question."""
        past, logits, tokens = self._read(batch, rules.max_tokens - 1)
        if rules.sampling is None:
            rows, uniform = list(range(len(batch))), []
        else:
            rows = [row for row, question in enumerate(batch) for _ in question.asks]
            uniform = [
                chances(self.seed, question.prompt, sample, rules.max_tokens)
                for question in batch
                for sample in range(len(question.asks))
            ]
        past.select(rows)
        try:
            found = generate(self.model, past, logits[rows], rules, uniform, self._decode)
        except NotANumber as error:
            raise self._not_a_number(batch[rows[error.args[0]]].asks[0]) from error
        texts: list[list[Answer]] = [[] for _ in batch]
        for row, response in zip(rows, found, strict=True):
            text = self.tokenizer.decode(response, skip_special_tokens=True)
            text = postprocess_generated_text(text, list(rules.stop), None)
            copies = len(batch[row].asks) if rules.sampling is None else 1
            texts[row] += [[text]] * copies
        return texts, tokens + sum(map(len, found))

    def _read(self, batch: list[Question], further: int) -> tuple[Past, Tensor, int]:
        prompts = [question.prompt for question in batch]
        return read_prompts(self.model, prompts, further, share=self._shares)

    def _rules(self, request: Instance) -> Rules:
        settings = normalize_gen_kwargs(request.args[1], self.max_gen_toks)
        end = self.tokenizer.decode(self.eot_token_id)
        stop = tuple(handle_stop_sequences(settings.get("until"), eos=end))
        sampling = None
        if settings["do_sample"]:
            sampling = Sampling(settings["temperature"], settings.get("top_p", 1.0))
        return Rules(
            max_tokens=settings["max_gen_toks"],
            stop=stop,
            eos=self._eos,
            sampling=sampling,
            settled=self._settled(str(request.task_name), stop),
        )

    def _settled(self, task: str, stop: Sequence[str]) -> Callable[[Sequence[int]], bool] | None:
        """Whether a response can be scored in one way only, as soon as no stop text has begun."""
        if task not in self.letters:
            return None
        begun = tuple(text[:end] for text in stop for end in range(1, len(text)))

        def settled(tokens: Sequence[int]) -> bool:
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
            return not text.endswith(begun) and letter.settled(text)

        return settled

    def _decode(self, tokens: Sequence[int]) -> str:
        return self._piece(tokens[0]) if len(tokens) == 1 else self.tokenizer.decode(tokens)

    def _not_a_number(self, number: int) -> UserError:
        task, document = self._where(number)
        return UserError(
            f"the model answers document {document} of {task} with NaN, which is no score: its"
            " weights are damaged, or overflow in this dtype (try --dtype float32)"
        )


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether it says so: torch's allocator, a processor's, CUDA itself, or cuBLAS."""
    signs = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in signs)


def _likelihoods(logits: Tensor, choices: Sequence[Sequence[int]]) -> list[tuple[float, bool]]:
    """Of each row's tokens under `[rows, longest, vocabulary]`, padded on the right."""
    longest = logits.shape[1]
    padded = [[*choice] + [-1] * (longest - len(choice)) for choice in choices]
    wanted = torch.tensor(padded, device=logits.device)
    scores = torch.zeros(wanted.shape, device=logits.device)
    greedy = torch.ones_like(wanted, dtype=torch.bool)
    for place in (wanted >= 0).nonzero().split(_LIKELIHOOD_TOKENS):
        some, aim = logits[place[:, 0], place[:, 1]], wanted[place[:, 0], place[:, 1]]
        found = some.float().log_softmax(-1).gather(1, aim[:, None])[:, 0]
        scores[place[:, 0], place[:, 1]] = found
        greedy[place[:, 0], place[:, 1]] = some.argmax(-1) == aim
    return list(zip(scores.sum(1).tolist(), greedy.all(1).tolist(), strict=True))
