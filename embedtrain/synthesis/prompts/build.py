"""From a planned query to a request: the turns, and what gives way where they are too long."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from embedtrain.data.documents.document import Chunk
from embedtrain.encoding.language.chat import Request, Turn
from embedtrain.errors import UserError
from embedtrain.synthesis.like import Example
from embedtrain.synthesis.plan import USER, Slot
from embedtrain.synthesis.prompts import wordings

T = TypeVar("T")

EXAMPLE_WORDS = 80
"""Of an example's passage at most."""
TOKENS_PER_TURN = 8
"""That a chat template puts around a turn."""
TOKENS_PER_ENTRY = 24
"""That JSON puts around a query."""
RETRY_TEMPERATURE = 0.3
"""At least, where an answer could not be used: the likeliest words would be the same again."""
SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*|\n+")  # noqa: RUF001


def _schema(**fields: object) -> str:
    """Return the schema of a list of queries, each with the number of its slot and these fields."""
    entry = {
        "type": "object",
        "properties": {"slot": {"type": "integer"}, **fields},
        "required": ["slot", *fields],
        "additionalProperties": False,
    }
    return json.dumps(
        {
            "type": "object",
            "properties": {"queries": {"type": "array", "items": entry}},
            "required": ["queries"],
            "additionalProperties": False,
        }
    )


TEXT = {"type": "string"}
SCHEMA = _schema(text=TEXT)
CONTEXT_SCHEMA = _schema(
    text=TEXT, answer=TEXT, texts={"type": "array", "items": {"type": "integer"}}
)


@dataclass(frozen=True)
class Prompter:
    """Writes requests for one model.

    Attributes:
        examples: The user's, or none.
        num_examples: That are shown.
        context: Tokens of a prompt and its answer at most.
        size: Tokens of a text.
        max_new_tokens: Of a query.
        top_p: Of the draws.
        as_json: Ask for all queries of a chunk at once.
    """

    examples: Sequence[Example]
    num_examples: int
    context: int
    size: Callable[[str], int]
    max_new_tokens: int
    top_p: float
    as_json: bool

    def request(self, chunk: Chunk, slots: Sequence[Slot], attempt: int) -> Request:
        """Return the request for slots of a chunk; in text there is one.

        Raises:
            UserError: If the context leaves no room for a text.
        """
        first = slots[0]
        most = self.max_new_tokens + TOKENS_PER_ENTRY * self.as_json
        system = Turn("system", self._system(first))
        shown = self._shown(slots)
        tail = f"\n\n{self._task(slots)}"
        room = self.context - most * len(slots)
        examples, text = self._fit(system, shown, chunk, tail, room)
        asked = Turn("user", _passage(chunk, text) + tail)
        return Request(
            (system, *(turn for pair in examples for turn in pair), asked),
            max(first.temperature, RETRY_TEMPERATURE) if attempt else first.temperature,
            self.top_p if first.temperature or attempt else 1.0,
            first.seed + attempt if first.temperature or attempt else 0,
            most * len(slots), one_line=not self.as_json,
            schema=SCHEMA if self.as_json else None, attempt=attempt,
        )  # fmt: skip

    def _system(self, slot: Slot) -> str:
        style = [one.query for one in self.examples if not one.positive]
        style = _turned(style, slot.turn)[: self.num_examples]
        parts = [wordings.ROLE, wordings.RULES]
        if slot.persona:
            parts.append(wordings.PERSONA.format(persona=slot.persona))
        if style:
            parts.append("\n".join([wordings.STYLE, *style]))
        return "\n".join([*parts, wordings.JSON_ONLY if self.as_json else wordings.ONLY])

    def _task(self, slots: Sequence[Slot]) -> str:
        """Return what is asked for below a text: small models do what they have read last."""
        if self.as_json:
            lines = [wordings.JSON_WANTED]
            for number, slot in enumerate(slots, 1):
                lines.append(wordings.JSON_SLOT.format(slot=number, wanted=" ".join(_asked(slot))))
            return "\n".join(lines)
        return " ".join(_asked(slots[0]))

    def _shown(self, slots: Sequence[Slot]) -> list[tuple[Turn, Turn]]:
        """Return examples as turns, those of the user if any has a text, else ours where they are in the language."""
        first = slots[0]
        pairs = [(one.positive, {USER: one.query}) for one in self.examples if one.positive]
        if not self.examples and first.language in (None, "en"):
            pairs = list(wordings.EXAMPLES)
        turns = []
        for text, queries in _turned(pairs, first.turn)[: self.num_examples]:
            cut = " ".join(text.split()[:EXAMPLE_WORDS])
            question = f"{wordings.PASSAGE} {cut}\n\n{self._task(slots[:1])}"
            answer = queries.get(first.type, "")
            if self.as_json:
                answer = json.dumps({"queries": [{"slot": 1, "text": answer}]}, ensure_ascii=False)
            turns.append((Turn("user", question), Turn("assistant", answer)))
        return turns

    def _fit(
        self, system: Turn, shown: list[tuple[Turn, Turn]], chunk: Chunk, tail: str, room: int
    ) -> tuple[list[tuple[Turn, Turn]], str]:
        """Drop examples from the end, then sentences of the text, until all fits; the instruction stays whole."""
        fixed = self.size(system.content) + self.size(tail) + 2 * TOKENS_PER_TURN
        costs = [sum(self.size(turn.content) + TOKENS_PER_TURN for turn in pair) for pair in shown]
        whole = self.size(_passage(chunk, chunk.text))
        while shown and fixed + sum(costs) + whole > room:
            shown, costs = shown[:-1], costs[:-1]
        left = room - fixed
        if whole <= left:
            return shown, chunk.text
        left -= self.size(_passage(chunk, ""))
        text = first_sentences(chunk.text, lambda part: self.size(part) <= left)
        if not text:
            raise UserError(
                "the prompt", "leaves no room for a text in what the model reads",
                got=f"{self.context} tokens", cure="Raise context, or lower max_new_tokens",
            )  # fmt: skip
        return shown, text


def draft_request(titles: Sequence[str], count: int, seed: int) -> Request:
    """Return the request for descriptions of people who would search texts with such titles."""
    listed = "\n".join(titles)
    return Request(
        (Turn("user", f"{wordings.DRAFT.format(count=count)}\n\n{listed}"),),
        temperature=0.7, top_p=0.95, seed=seed, max_tokens=32 * count, one_line=False,
    )  # fmt: skip


def _passage(chunk: Chunk, text: str) -> str:
    title = " > ".join(filter(None, (chunk.title, chunk.heading)))
    head = f"{wordings.TITLE} {title}\n" if title else ""
    return f"{head}{wordings.PASSAGE} {text}"


def _asked(slot: Slot) -> list[str]:
    """Return what a slot wants, a sentence each."""
    found = [wordings.TYPES[slot.type]]
    if slot.words is not None:
        found.append(wordings.WORDS.format(fewest=slot.words[0], most=slot.words[1]))
    found.append(wordings.DIFFICULTY[slot.difficulty])
    if slot.language is not None:
        name = wordings.LANGUAGES.get(slot.language, slot.language)
        found.append(wordings.LANGUAGE.format(language=name))
    return list(filter(None, found))


def _turned(items: Sequence[T], turn: int) -> list[T]:
    """Return items from one on, those before it behind the others."""
    start = turn % len(items) if items else 0
    return [*items[start:], *items[:start]]


@lru_cache(maxsize=2**10)
def _sentence_ends(text: str) -> tuple[int, ...]:
    return tuple(found.start() for found in SENTENCE_END.finditer(text) if found.start())


def first_sentences(text: str, fits: Callable[[str], bool]) -> str:
    """Return as many whole sentences as fit; of a first one that does not, as many words."""
    blanks = [found.start() for found in re.finditer(r"\s+", text) if found.start()]
    for ends in (_sentence_ends(text), blanks, range(1, len(text))):
        low, high = 0, len(ends)
        while low < high:
            middle = (low + high + 1) // 2
            if fits(text[: ends[middle - 1]]):
                low = middle
            else:
                high = middle - 1
        if low:
            return text[: ends[low - 1]]
    return ""
