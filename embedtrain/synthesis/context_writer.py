"""A language model writes tasks with answers about contexts: one request for each, answered as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass

from embedtrain.data.draw import number
from embedtrain.data.words import language_of
from embedtrain.encoding.language.answers import common_length
from embedtrain.encoding.language.chat import Reply, Request, Turn
from embedtrain.encoding.language.request_store import RequestStore
from embedtrain.errors import UserError
from embedtrain.synthesis.asking import ask
from embedtrain.synthesis.contexts import Context, ContextConfig
from embedtrain.synthesis.language_writer import FAILED, LanguageWriter
from embedtrain.synthesis.plan import SEEDS
from embedtrain.synthesis.prompts import wordings
from embedtrain.synthesis.prompts.build import (
    CONTEXT_SCHEMA,
    RETRY_TEMPERATURE,
    TOKENS_PER_ENTRY,
    TOKENS_PER_TURN,
    first_sentences,
)
from embedtrain.synthesis.replies import Answered, json_tasks


@dataclass(frozen=True)
class Written:
    """A task that was wanted of a context, and what came.

    Attributes:
        context: What it is about.
        task: Its kind.
        slot: Its number, from 1.
        found: Query, answer and the texts that it needs; empty where nothing could be read.
        finish: How the answer ended.
    """

    context: Context
    task: str
    slot: int
    found: Answered
    finish: str


class ContextWriter:
    """Asks the model of a :class:`LanguageWriter` for tasks; its answers are kept and counted there.

    Args:
        writer: Who is asked.
        config: What is wanted.
        seed: Of the draws.
    """

    def __init__(self, writer: LanguageWriter, config: ContextConfig, seed: int) -> None:
        self.writer, self.config, self.seed = writer, config, seed

    def write(self, contexts: Sequence[Context]) -> list[Written]:
        """Return what was written, in the order of contexts and tasks; fewer where a budget ended the work.

        Raises:
            UserError: If the server refuses requests, or the model does not read as much as a context.
        """
        chat, wanted = self.writer.chat, len(self.config.tasks)
        with RequestStore(self.writer.folder) as store:

            def reply_of(row: int, attempt: int) -> Reply | None:
                return store.find(self.request(contexts[row], attempt).key(chat.identity))

            def problem_of(row: int, attempt: int) -> str:
                reply = reply_of(row, attempt)
                return "" if reply is None else json_tasks(reply, wanted)[1]

            attempts = ask(
                chat, store, self.writer.tally, len(contexts),
                lambda row, attempt: self.request(contexts[row], attempt), problem_of,
            )  # fmt: skip
            replies = [reply_of(row, attempt) for row, attempt in enumerate(attempts)]
        made = []
        for context, reply in zip(contexts, replies, strict=True):
            if reply is None:  # it was never sent, or the report tells why nothing came
                continue
            found, _ = json_tasks(reply, wanted)
            for slot, task in enumerate(self.config.tasks, 1):
                own = found.get(slot, Answered("", "", ()))
                finish = "stop" if slot in found else FAILED
                self.writer.tally.counts[finish] += 1
                made.append(Written(context, task, slot, own, finish))
        return made

    def request(self, context: Context, attempt: int = 0) -> Request:
        """Return what is asked about a context.

        Raises:
            UserError: If the model does not read as much.
        """
        config, tasks = self.writer.config, self.config.tasks
        most = len(tasks) * (config.max_new_tokens + 2 * TOKENS_PER_ENTRY)
        parts = [wordings.CONTEXT_ROLE, wordings.CONTEXT_RULES, wordings.CONTEXT_ONLY]
        system = "\n".join(parts)
        lines = [wordings.JSON_WANTED]
        for slot, task in enumerate(tasks, 1):
            lines.append(wordings.JSON_SLOT.format(slot=slot, wanted=wordings.CONTEXT_TASKS[task]))
        language = language_of(context.chunks[0].text)
        if language is not None:
            name = wordings.LANGUAGES.get(language, language)
            lines.append(wordings.LANGUAGE.format(language=name))
        tail = "\n".join(lines)
        texts = self._cut(context, most, system + tail)
        asked = Turn("user", f"{texts}\n\n{tail}")
        warm = config.temperature if not attempt else max(config.temperature, RETRY_TEMPERATURE)
        return Request(
            (Turn("system", system), asked), warm, config.top_p if warm else 1.0,
            number(self.seed, context.id, "draw") % SEEDS + attempt if warm else 0,
            most, one_line=False, schema=CONTEXT_SCHEMA, attempt=attempt,
        )  # fmt: skip

    def _cut(self, context: Context, answer: int, around: str) -> str:
        """Return the texts of a context with their numbers, long ones cut alike where all do not fit."""
        chat = self.writer.chat
        heads = [
            wordings.CONTEXT_TEXT.format(number=row) for row in range(1, len(context.chunks) + 1)
        ]
        fixed = chat.size(around) + sum(map(chat.size, heads)) + 2 * TOKENS_PER_TURN
        room = (self.writer.config.context or chat.context) - answer - fixed
        texts = [" ".join(filter(None, (one.title, one.text))) for one in context.chunks]
        most = common_length([chat.size(text) for text in texts], room)
        cut = [first_sentences(text, lambda part: chat.size(part) <= most) for text in texts]
        whole = [
            text if chat.size(text) <= most else short
            for text, short in zip(texts, cut, strict=True)
        ]
        if not all(whole):
            raise UserError(
                "the prompt", f"leaves no room for {len(texts)} texts in what the model reads",
                got=f"{self.writer.config.context or chat.context} tokens",
                cure="Raise language.context, or lower contexts.texts or language.max_new_tokens",
            )  # fmt: skip
        return "\n\n".join(f"{head} {text}" for head, text in zip(heads, whole, strict=True))
