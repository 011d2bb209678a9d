"""A language model orders several documents at once; a window moves from the worst to the best.

Documents are named by letters. Where the answer begins, the logits of the letters order the window: one pass, nothing is
written, nothing can be malformed. The score of a document is how many of its list stand below it, so only the order
means something.
Source: Sun et al. (2023), RankGPT, https://arxiv.org/abs/2304.09542 (windows); Reddy et al. (2024), FIRST,
https://arxiv.org/abs/2406.15657 (letters).
"""

from collections.abc import Sequence
from itertools import groupby
from string import ascii_uppercase

import numpy as np
import torch
from jaxtyping import Float64

from embedtrain.contract.texts import join_texts
from embedtrain.encoding.language.prompts import (
    CHAT,
    FLAG,
    chat_turn,
    filled_instruction,
    has_chat,
    read_template,
    token_ids,
    with_beginning,
)
from embedtrain.encoding.language.reader import judged, key_of
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.encoding.pair_work import PairWork
from embedtrain.errors import UserError
from embedtrain.models.language.model import LanguageModel
from embedtrain.models.language.shared_prefix import Reading
from embedtrain.packed import Texts
from embedtrain.precision import Chosen

LISTWISE = (
    "Task: {instruction}\nQuery: {query}\n\nPassages:{passages}\n\n"
    "Which passage meets the task for this query best? Answer with its letter."
)
PLACES = ("{query}", "{passages}")


class Listwise:
    """Scores the documents of a query by their place in the model's order.

    Pairs of one query that follow one another are a list, in the order of a first stage: its best come first.

    Args:
        model: What orders.
        settings: How it is asked.

    Raises:
        UserError: If the template lacks a place, or the window moves further than it is wide.
    """

    def __init__(self, model: LanguageModel, settings: LanguageSettings) -> None:
        self.model = model
        self.window, self.step = settings.window, settings.step
        if self.step >= self.window:
            raise UserError(
                "--step", "must be smaller than the window, which else loses documents",
                got=(self.step, self.window), cure="Lower it",
            )  # fmt: skip
        tokenizer = model.tokenizer
        name = settings.template or (CHAT if has_chat(tokenizer) else f"{LISTWISE}\nAnswer:")
        text = chat_turn(tokenizer, LISTWISE) if name == CHAT else read_template(name)
        self.text = with_beginning(tokenizer, filled_instruction(text, settings.instruction))
        if [self.text.count(place) for place in PLACES] != [1, 1]:
            problem = "must hold {query} and {passages}, each once"
            raise UserError(FLAG, problem, got=self.text, cure="Add them")
        self.length = min(settings.length * self.window, model.max_length)
        self.query_length = settings.query_length
        space = "" if name == CHAT or self.text[-1:].isspace() else " "
        letters = ascii_uppercase[: self.window]
        self.letters = [token_ids(tokenizer, space + letter)[-1] for letter in letters]
        self.work = PairWork()

    @property
    def precision(self) -> Chosen:
        """What the network computes in."""
        return self.model.precision

    def key(self) -> str:
        """Return a hash of all that an order depends on, but for the list itself."""
        asked = [self.text, self.length, self.query_length, self.window, self.step]
        return key_of(self.model, "listwise", *asked)

    def describe(self) -> dict[str, object]:
        """Return what the scores came from, for those who are to make them again."""
        return {
            "kind": "listwise", "precision": self.precision, "template": self.text,
            "window": self.window, "step": self.step, "scale": "ordinal",
        }  # fmt: skip

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs by how many documents of their list stand below them."""
        groups = [list(own) for _, own in groupby(pairs, key=lambda pair: pair[0])]
        orders = [list(range(len(group))) for group in groups]
        plans = [windows(len(group), self.window, self.step) for group in groups]
        for turn in range(max(map(len, plans), default=0)):
            rows = [row for row, plan in enumerate(plans) if turn < len(plan)]
            asked = [
                (
                    groups[row][0][0],
                    [groups[row][place][1] for place in orders[row][slice(*plans[row][turn])]],
                )
                for row in rows
            ]
            for row, best_first in zip(rows, self._order(asked), strict=True):
                where = slice(*plans[row][turn])
                own = orders[row][where]
                orders[row][where] = [own[place] for place in best_first]
        scores = np.empty(len(pairs))
        begin = 0
        for order in orders:
            scores[begin + np.array(order, dtype=np.int64)] = np.arange(len(order))[::-1]
            begin += len(order)
        self.work.pairs += len(pairs)
        return scores

    def letters_of(
        self, asked: Sequence[tuple[str, list[str]]]
    ) -> Float64[torch.Tensor, "windows letters"]:
        """Return the logits of the letters behind queries and the documents of a window each."""
        texts, heads = self._prompts(asked)

        def letters(rows: list[int], states: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
            return self.model.logits(states, self.letters)

        reading = Reading(texts, heads, torch.ones_like(heads))
        return judged(self.model, self.work, reading, letters)

    def _order(self, asked: Sequence[tuple[str, list[str]]]) -> list[list[int]]:
        """Return the places of the documents of each window, the best first; equal ones as they came."""
        found = self.letters_of(asked)
        counts = [len(documents) for _, documents in asked]
        return [
            row[:count].argsort(descending=True, stable=True).tolist()
            for row, count in zip(found, counts, strict=True)
        ]

    def _prompts(self, asked: Sequence[tuple[str, list[str]]]) -> tuple[Texts, torch.Tensor]:
        """Return the tokens of windows, and how many of each others of its query begin with.

        All documents of a window are cut to the same number of tokens.
        """
        tokenizer = self.model.tokenizer
        before, after = self.text.split(PLACES[1])
        found, heads = [], []
        for query, documents in asked:
            kept = tokenizer.decode(token_ids(tokenizer, query)[: self.query_length])
            head, end = (
                token_ids(tokenizer, part.replace(PLACES[0], kept)) for part in (before, after)
            )
            names = [
                token_ids(tokenizer, f"\n[{letter}]")
                for letter in ascii_uppercase[: len(documents)]
            ]
            room = (self.length - len(head) - len(end) - sum(map(len, names))) // len(documents)
            if room < 1:
                raise UserError(
                    "--length", f"leaves nothing for {len(documents)} documents", got=self.length,
                    cure="Raise it, or lower --window",
                )  # fmt: skip
            texts = [token_ids(tokenizer, f" {document}") for document in documents]
            self.work.cut_documents += sum(len(text) > room for text in texts)
            body = [
                token
                for name, text in zip(names, texts, strict=True)
                for token in (*name, *text[:room])
            ]
            found.append(np.array([*head, *body, *end]))
            heads.append(len(head))
        return join_texts(found), torch.tensor(heads)


def windows(size: int, window: int, step: int) -> list[tuple[int, int]]:
    """Return from where to where each window reaches, from the last documents to the first.

    The last one begins at 0, whatever the size: the first documents are always ordered.
    """
    if size < 2:
        return []
    begins = [*range(max(size - window, 0), 0, -step), 0]
    return [(begin, min(begin + window, size)) for begin in begins]
