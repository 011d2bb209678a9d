"""A language model of this process as a writer: a folder, a Hub id, or a file of llama.cpp.

Which requests are written together follows from all of them, known or not: what a kill left is written in the batches,
and so with the bits, of a process that was not disturbed.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from embedtrain.encoding.language.budget import Budget
from embedtrain.encoding.language.chat import Failure, Reply, Request, Turn, as_completion
from embedtrain.encoding.language.prompts import chat_text, has_chat, token_ids, with_beginning
from embedtrain.encoding.language.reader import key_of
from embedtrain.encoding.language.request_store import RequestStore
from embedtrain.models.language.model import LanguageModel, name_of
from embedtrain.models.language.writing import Draft, begin, write
from embedtrain.progress import progress_bar

BATCH = 16
"""Texts written at once."""
BATCH_TOKENS = 16384
"""Tokens of a batch with its answers, unless one text alone has more: they bound the keys and values held."""
FEWEST_SHARE = 4
"""Requests that begin alike for which it is worth computing that by itself."""


class LocalChat:
    """A causal language model that writes.

    Args:
        model: Who writes.
        thinks: Whether a model that can think before it answers may do so.
        budget: Where writing ends; looked at between batches.
    """

    def __init__(self, model: LanguageModel, *, thinks: bool, budget: Budget) -> None:
        self.model = model
        self.thinks = thinks
        self.budget = budget
        self.name = name_of(model.path)
        self.context = model.max_length
        self.num_parameters: int | None = model.model.num_parameters()
        self.failures: dict[str, Failure] = {}
        self.is_chat = has_chat(model.tokenizer)
        self._ends = self._ending()
        template = model.tokenizer.chat_template if self.is_chat else None
        self.identity = key_of(model, "writes", template, thinks, sorted(self._ends))

    def size(self, text: str) -> int:
        """Return how many tokens a text has."""
        return len(token_ids(self.model.tokenizer, text))

    def answer(self, requests: Sequence[Request], store: RequestStore) -> str:
        """Put answers to all requests that the store has none for into it; return why it ended early, or nothing."""
        keyed = {request.key(self.identity): request for request in requests}
        if all(key in store for key in keyed):
            return ""
        known = sum(key in store for key in keyed)
        with progress_bar(f"{self.name} writes", len(keyed), unit="answers", done=known) as advance:
            began, written = time.monotonic(), 0
            for batch in self._batches(keyed):
                missing = [key for key in batch if key not in store]
                if not missing:
                    continue
                most = sum(self._size(keyed[key]) for key in missing)
                if reason := self.budget.reason(store.bill(), most, 0):
                    return reason
                written += self._write(batch, keyed, store)
                advance(len(missing), f"{written / (time.monotonic() - began):,.0f} tokens/s")
        return ""

    def _write(self, batch: list[str], keyed: dict[str, Request], store: RequestStore) -> int:
        """Write a batch, and keep what was not known; return the tokens written."""
        requests = [keyed[key] for key in batch]
        drafts = [self._draft(request) for request in requests]
        began = time.monotonic()
        trunk, size = begin(self.model, drafts) if len(batch) >= FEWEST_SHARE else (None, 0)
        write(self.model, drafts, self._ends, trunk=trunk, trunk_size=size)
        seconds = round((time.monotonic() - began) / len(batch), 3)
        for key, draft in zip(batch, drafts, strict=True):
            if key not in store:
                reply = Reply(
                    self._text(draft.written), draft.finish, len(draft.ids), len(draft.logs),
                    draft.log_probability, seconds=seconds,
                )  # fmt: skip
                store.keep(key, reply)
        return sum(len(draft.logs) for draft in drafts)

    def _draft(self, request: Request) -> Draft:
        is_done: Callable[[list[int]], bool] = lambda written: bool(  # noqa: E731
            request.one_line and "\n" in self._text(written).lstrip()
        )
        return Draft(
            list(token_ids(self.model.tokenizer, self._prompt(request.turns))), request.max_tokens,
            request.temperature, request.top_p, request.seed, is_done,
        )  # fmt: skip

    def _prompt(self, turns: Sequence[Turn]) -> str:
        tokenizer = self.model.tokenizer
        if not self.is_chat:
            return with_beginning(tokenizer, as_completion(turns))
        said = [(turn.role, turn.content) for turn in turns]
        return with_beginning(tokenizer, chat_text(tokenizer, said, thinks=self.thinks))

    def _text(self, ids: list[int]) -> str:
        text: str = self.model.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _batches(self, keyed: dict[str, Request]) -> Iterator[list[str]]:
        """Yield keys of requests written together: those that begin alike first, long ones before short ones."""
        families: dict[tuple[Turn, ...], list[str]] = {}
        for key, request in keyed.items():
            families.setdefault(request.turns[:-1], []).append(key)
        together = [keys for keys in families.values() if len(keys) >= FEWEST_SHARE]
        few = [own for own in families.values() if len(own) < FEWEST_SHARE]
        for keys in [*together, [key for own in few for key in own]]:
            sizes = {key: self._size(keyed[key]) for key in keys}
            left = sorted(keys, key=lambda key: (-sizes[key], key))
            while left:
                number = min(BATCH, max(1, BATCH_TOKENS // sizes[left[0]]))
                yield left[:number]
                left = left[number:]

    def _size(self, request: Request) -> int:
        return sum(self.size(turn.content) for turn in request.turns) + request.max_tokens

    def _ending(self) -> frozenset[int]:
        """Return the tokens that end an answer: those of the model, and what its template puts behind one."""
        tokenizer = self.model.tokenizer
        said = self.model.model.generation_config.eos_token_id
        found = {tokenizer.eos_token_id, *(said if isinstance(said, list) else [said])}
        if self.is_chat:
            whole = chat_text(tokenizer, [("user", "a"), ("assistant", "b")], answered=True)
            ids = token_ids(tokenizer, whole.rpartition("b")[2])
            found |= {*ids[:1]} & {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        return frozenset(found - {None})
