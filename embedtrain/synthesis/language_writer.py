"""A language model as a writer of queries: planned, asked, read, and asked again where an answer cannot be used."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from embedtrain.data.documents.document import Chunk
from embedtrain.data.draw import number
from embedtrain.encoding.language.budget import Budget
from embedtrain.encoding.language.chat import ChatModel, Reply, Request
from embedtrain.encoding.language.endpoint import is_endpoint
from embedtrain.encoding.language.endpoint_chat import EndpointChat
from embedtrain.encoding.language.local_chat import LocalChat
from embedtrain.encoding.language.request_store import RequestStore
from embedtrain.errors import UserError
from embedtrain.models.language.model import LanguageModel
from embedtrain.synthesis.asking import ask
from embedtrain.synthesis.candidate import Candidate
from embedtrain.synthesis.language_settings import SMALL_TYPES, TYPES, LanguageConfig
from embedtrain.synthesis.like import Example, read_like, usual_words
from embedtrain.synthesis.plan import SEEDS, Slot, plan
from embedtrain.synthesis.prompts.build import Prompter, draft_request
from embedtrain.synthesis.prompts.wordings import EXAMPLES
from embedtrain.synthesis.replies import EMPTY, first_line, json_queries, spoken
from embedtrain.synthesis.tally import Tally

REQUESTS = "requests"
"""Folder of the answers, below the output."""
FEW_PARAMETERS = 10**9
THINKING_FACTOR = 8
NUM_PERSONAS, NUM_TITLES = 12, 20
TOKENS_PER_QUERY = 32
"""Written for a query, about, before any was."""
FAILED = "failed"
KNOWN_SIZES = 2**16
"""Texts whose tokens are counted once."""


@dataclass(frozen=True)
class Task:
    """The slots of a chunk that one request asks for."""

    chunk: Chunk
    slots: tuple[Slot, ...]


class LanguageWriter:
    """Writes queries by a language model; answers are kept, so that a killed run goes on where it was.

    Args:
        chat: Who answers.
        config: What is asked.
        folder: Of the kept answers.
        examples: The user's own queries.
        seed: Of the plan.

    Attributes:
        examples: Queries that prompts show, which an answer may copy.
        tally: What became of the requests.
    """

    def __init__(
        self,
        chat: ChatModel,
        config: LanguageConfig,
        folder: Path,
        examples: Sequence[Example],
        seed: int,
    ) -> None:
        self.chat = chat
        self.name = chat.name
        self.config = config
        self.folder = folder
        self.own = list(examples)
        self.seed = seed
        self.tally = Tally()
        is_small = chat.num_parameters is not None and chat.num_parameters < FEW_PARAMETERS
        self.types = config.types or (SMALL_TYPES if is_small else TYPES)
        shown = config.examples
        self.examples = tuple(one.query for one in self.own)
        if not self.own and shown:
            self.examples = tuple(query for _, queries in EXAMPLES for query in queries.values())
        self.prompter = Prompter(
            self.own, shown, config.context or chat.context, lru_cache(KNOWN_SIZES)(chat.size),
            config.max_new_tokens * (THINKING_FACTOR if config.thinks else 1),
            config.top_p, config.format == "json",
        )  # fmt: skip

    def write(self, chunks: Sequence[Chunk]) -> Iterator[Candidate]:
        """Yield candidates in the order of the chunks and of their slots; fewer where a budget ended the work.

        Raises:
            UserError: If the server refuses requests, or the context leaves no room for a text.
        """
        with RequestStore(self.folder) as store:
            tasks = self._tasks(chunks, store)
            attempts = ask(
                self.chat, store, self.tally, len(tasks),
                lambda row, attempt: self._request(tasks[row], attempt),
                lambda row, attempt: self._problem(tasks[row], attempt, store),
            )  # fmt: skip
            for task, attempt in zip(tasks, attempts, strict=True):
                yield from self._candidates(task, attempt, store)

    def forecast(self, chunks: Sequence[Chunk]) -> dict[str, object]:
        """Return what writing would take, with nothing asked: requests, kept answers, tokens about, and their price."""
        with RequestStore(self.folder) as store:
            tasks = self._tasks(chunks, store, draft=False)
            requests = [self._request(task, 0) for task in tasks]
            missing = [one for one in requests if one.key(self.chat.identity) not in store]
        read = sum(self.chat.size(turn.content) for one in missing for turn in one.turns)
        written = TOKENS_PER_QUERY * len(missing) * len(tasks[0].slots) if tasks else 0
        found: dict[str, object] = {
            "chunks": len(chunks), "requests": len(requests), "kept": len(requests) - len(missing),
            "prompt_tokens": read, "completion_tokens": written,
        }  # fmt: skip
        cost = self.config.endpoint.cost(read, written)
        return found if cost is None else {**found, "cost": round(cost, 6)}

    def wanted_languages(self, chunks: Sequence[Chunk]) -> dict[tuple[str, int], str | None]:
        """Return the language that each query is to be in, by the id of its chunk and its slot."""
        return {(slot.chunk, slot.number): slot.language for slot in self._plan(chunks, ())}

    def stands_for(self) -> dict[str, object]:
        """Return what its queries depend on beside its settings and the chunks."""
        own = json.dumps([[one.query, one.positive] for one in self.own], ensure_ascii=False)
        digest = hashlib.sha256(own.encode(errors="surrogatepass")).hexdigest()
        return {"model": self.chat.identity, "like": digest if self.own else None}

    def notes(self) -> list[str]:
        """Say what a reader of the queries should know."""
        failed = self.tally.failed()
        return [f"{failed}: their queries are missing."] if failed else []

    def report(self) -> dict[str, object]:
        """Return what was asked and what it cost, over all runs into this folder; the counts are of this one."""
        with RequestStore(self.folder) as store:
            bill = store.bill()
        found: dict[str, object] = {
            "model": self.name, "format": self.config.format, "own_examples": len(self.own),
            "requests": bill.requests, "answers": bill.answers,
            "prompt_tokens": bill.prompt_tokens, "completion_tokens": bill.completion_tokens,
            "unknown_requests": bill.unknown,
            "unknown_tokens_at_most": bill.unknown_prompt_tokens + bill.unknown_completion_tokens,
            "queries": dict(sorted(self.tally.counts.items())),
            "unusable_answers": dict(sorted(self.tally.problems.items())), "ended": self.tally.ended,
            "failed_requests": len(self.tally.failures),
            "failed_share": round(len(self.tally.failures) / max(1, self.tally.requests), 4),
        }  # fmt: skip
        cost = self.config.endpoint.cost(bill.prompt_tokens, bill.completion_tokens)
        most = self.config.endpoint.cost(*bill.both())
        if cost is not None and most is not None:
            found |= {"cost": round(cost, 6), "cost_at_most": round(most, 6)}
        return found

    def _tasks(
        self, chunks: Sequence[Chunk], store: RequestStore, *, draft: bool = True
    ) -> list[Task]:
        personas: Sequence[str] = ()
        if self.config.personas == "draft":
            personas = self._drafted(chunks, store, ask=draft)
        else:
            personas = self.config.personas
        slots = self._plan(chunks, personas)
        size = self.config.per_chunk
        by_chunk = zip(chunks, range(0, len(slots), size), strict=True)
        whole = [(chunk, tuple(slots[start : start + size])) for chunk, start in by_chunk]
        if self.config.format == "json":
            return [Task(chunk, own) for chunk, own in whole]
        return [Task(chunk, (slot,)) for chunk, own in whole for slot in own]

    def _plan(self, chunks: Sequence[Chunk], personas: Sequence[str]) -> list[Slot]:
        words = usual_words(self.own) if self.own else None
        return plan(
            chunks, self.config, self.seed, self.types,
            personas=personas, user_words=words, is_users=bool(self.own),
        )  # fmt: skip

    def _drafted(self, chunks: Sequence[Chunk], store: RequestStore, *, ask: bool) -> list[str]:
        """Return people whom the model thinks of from titles drawn by a hash; without an answer the work ends here."""
        titles = {chunk.title for chunk in chunks if chunk.title}
        drawn = sorted(titles, key=lambda title: (number(self.seed, "title", title), title))
        if not drawn:
            return []
        request = draft_request(
            drawn[:NUM_TITLES], NUM_PERSONAS, number(self.seed, "people") % SEEDS
        )
        key = request.key(self.chat.identity)
        if ask:
            self.tally.ended = self.chat.answer([request], store)
            if key not in store and not self.tally.ended:
                self.tally.ended = f"nobody was drafted ({self.chat.failures[key].reason})"
        reply = store.find(key)
        lines = [] if reply is None else spoken(reply.text)[0].split("\n")
        people = [line.strip(" -*\u2022.0123456789)") for line in lines]
        return [one for one in people if one][:NUM_PERSONAS]

    def _request(self, task: Task, attempt: int) -> Request:
        return self.prompter.request(task.chunk, task.slots, attempt)

    def _reply(self, task: Task, attempt: int, store: RequestStore) -> Reply | None:
        return store.find(self._key(task, attempt))

    def _key(self, task: Task, attempt: int) -> str:
        return self._request(task, attempt).key(self.chat.identity)

    def _problem(self, task: Task, attempt: int, store: RequestStore) -> str:
        """Say why an answer that came cannot be used; empty where it can."""
        reply = self._reply(task, attempt, store)
        if reply is None or self.config.format == "text":
            return ""
        return json_queries(reply, len(task.slots)).problem

    def _candidates(self, task: Task, attempt: int, store: RequestStore) -> Iterator[Candidate]:
        reply = self._reply(task, attempt, store)
        if reply is None:
            if self._key(task, attempt) not in self.chat.failures:  # it was never sent
                return
            found = {slot.number: ("", FAILED) for slot in task.slots}
        elif self.config.format == "text":
            found = {task.slots[0].number: first_line(reply)}
        else:
            queries = json_queries(reply, len(task.slots))
            lost = ("", FAILED if queries.problem else EMPTY)
            given = {place: (query, "stop") for place, query in queries.by_slot.items()}
            found = {
                slot.number: given.get(place, lost) for place, slot in enumerate(task.slots, 1)
            }
        for slot in task.slots:
            query, finish = found[slot.number]
            self.tally.counts[finish] += 1
            yield Candidate(
                query, task.chunk.text, task.chunk.id, task.chunk.document, self.name, slot.type,
                slot.number, finish, reply.log_probability if reply and len(task.slots) == 1 else None,
            )  # fmt: skip


def open_language_writer(
    llm: str,
    config: LanguageConfig,
    folder: Path,
    like: Path | None = None,
    *,
    seed: int = 0,
) -> LanguageWriter:
    """Return a writer that asks a language model.

    Args:
        llm: An address of an OpenAI-compatible server, or a model of this process: a folder, a Hub id, a ``.gguf``.
        config: What is asked.
        folder: The output, in which answers are kept; one process writes there.
        like: A file of the user's own queries.
        seed: Of the plan.

    Raises:
        UserError: If the model cannot be opened, or the file cannot be used.
    """
    examples = [] if like is None else read_like(like)
    budget = Budget(
        config.budget_tokens, config.budget_money, config.budget_seconds, config.endpoint.cost
    )
    if is_endpoint(llm):
        chat: ChatModel = EndpointChat(llm, config.endpoint, context=config.context, budget=budget)
    else:
        model = LanguageModel(llm, precision=config.precision)
        chat = LocalChat(model, thinks=config.thinks, budget=budget)
    if config.context is not None and config.context > chat.context and not is_endpoint(llm):
        raise UserError(
            "context", "is more than the model reads", got=config.context,
            cure=f"Lower it to {chat.context} at most",
        )  # fmt: skip
    return LanguageWriter(chat, config, folder / REQUESTS, examples, seed)
