"""Any model of the harness's with its responses stored: for backends that batch by themselves."""

import math
from collections.abc import Mapping
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from losia_cli.errors import UserError
from losia_cli.evaluation.model import Watcher
from losia_cli.evaluation.store import Store
from losia_cli.files import sha256_of

PIECE = 512  # requests that are answered, and stored, together


class StoredLM(LM):
    """Answers from the store, or by another model of the harness's, piece by piece.

    Args:
        model: the harness's model.
        identity: all that decides a response beside the request.
        store: where responses are kept.
        watcher: told how far it is.
    """

    def __init__(
        self, model: LM, *, identity: Mapping[str, Any], store: Store, watcher: Watcher
    ) -> None:
        super().__init__()
        self.model, self.identity = model, dict(identity)
        self.store, self.watcher = store, watcher

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation, and whether greedy decoding gives it."""
        found = self._answer("loglikelihood", requests)
        for (score, _greedy), request in zip(found, requests, strict=True):
            if math.isnan(score):
                raise UserError(
                    f"the model answers document {request.doc_id} of {request.task_name} with NaN,"
                    " which is no score: its weights are damaged, or overflow in this dtype"
                )
        return [(score, greedy) for score, greedy in found]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        """The log-likelihood of whole texts."""
        return self._answer("loglikelihood_rolling", requests)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """The response to each prompt, without what ended it."""
        return self._answer("generate_until", requests)

    def count_truncated(self) -> None:
        """Not known: the backend cuts prompts by itself."""

    def _answer(self, kind: str, requests: list[Instance]) -> list[Any]:
        self.watcher.begin(len(requests))
        found: list[Any] = []
        for start in range(0, len(requests), PIECE):
            piece = requests[start : start + PIECE]
            key = sha256_of([self.identity, kind, start, [request.args for request in piece]])
            answers = self.store.get(key)
            if answers is None:
                answers = getattr(self.model, kind)(piece, disable_tqdm=True)
                self.store.put(key, answers)
            self.watcher.advance(len(piece), 0)
            found += answers
        return found

    def apply_chat_template(self, chat_history: list[dict[str, str]], **options: Any) -> str:
        """The wrapped model's."""
        return self.model.apply_chat_template(chat_history, **options)

    @property
    def tokenizer_name(self) -> str:
        """The wrapped model's."""
        return self.model.tokenizer_name
