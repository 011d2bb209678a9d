"""A language model is asked whether a document answers a query: log-odds of yes against no."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from embedtrain.encoding.language.prompts import CHAT, Prompt, answer_forms, has_chat, open_prompt
from embedtrain.encoding.language.reader import PromptScorer, Reader, Weights, with_ends
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.encoding.pair_work import PairWork
from embedtrain.errors import UserError
from embedtrain.models.language.model import LanguageModel

EMPTY = ("N/A", "N/A")
"""A pair that says nothing: what a model answers to it, it would answer to anything."""
LEAST_MASS = 0.1
"""Below it the answers are not what the model is about to say, and their odds mean nothing."""


@dataclass(frozen=True)
class Answers:
    """The tokens of two answers; ``no`` is empty where there is one only."""

    yes: tuple[int, ...]
    no: tuple[int, ...]


class YesNo(PromptScorer):
    """Scores pairs by ``log p(yes) - log p(no)`` behind the prompt.

    Of two answers of one token each, nothing but the last state and two rows of the output matrix is needed. An
    answer of several tokens is worth the sum of their log-probabilities; the pair is read once for each answer then.

    Args:
        model: What answers.
        settings: How it is asked.
        share: Compute what pairs begin with once.

    Raises:
        UserError: If the answers cannot be told apart, or the model is about to say something else.
    """

    def __init__(
        self, model: LanguageModel, settings: LanguageSettings, *, share: bool = True
    ) -> None:
        self.model = model
        length = min(settings.length, model.max_length)
        prompt = open_prompt(
            model.tokenizer, settings.template, settings.instruction,
            default=CHAT if has_chat(model.tokenizer) else "plain",
            length=length, query_length=settings.query_length,
        )  # fmt: skip
        self.reader = Reader(model, prompt, share=share)
        self.words, self.answers, self.mass = self._choose(prompt, settings)
        self.shift = float(self._scores([EMPTY])[0]) if settings.centre else 0.0
        self.reader.work = PairWork()

    def key(self) -> str:
        """Return a hash of all that a score depends on."""
        return self.reader.key("yes_no", self.answers.yes, self.answers.no, self.shift)

    def describe(self) -> dict[str, object]:
        """Return what the scores came from, for those who are to make them again."""
        yes, no = self.words
        return {
            "kind": "yes_no", "precision": self.precision, "template": self.reader.prompt.text, "yes": yes, "no": no,
            "answer_mass": round(self.mass, 6), "subtracted": round(self.shift, 6), "scale": "log_odds",
        }  # fmt: skip

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs by log-odds."""
        return self._scores(pairs) - self.shift if pairs else np.empty(0)

    def logits_and_states(
        self, pairs: Sequence[tuple[str, str]]
    ) -> tuple[Float64[np.ndarray, " pairs"], Float64[np.ndarray, "pairs dim"]]:
        """Score at least one pair; return the last state of each prompt as well, from which the answer is read.

        Scores have the bits that :meth:`logits` gives; answers of one token need no further reading for the states.
        """
        states: dict[int, Tensor] = {}
        scores = self._scores(pairs, states) - self.shift
        return scores, torch.stack([states[row] for row in range(len(pairs))]).numpy()

    def _scores(
        self, pairs: Sequence[tuple[str, str]], states: dict[int, Tensor] | None = None
    ) -> Float64[np.ndarray, " pairs"]:
        """Score pairs, and put the last state of each prompt into ``states`` by its row."""
        texts, heads = self.reader.pairs(pairs)
        yes, no = self.answers.yes, self.answers.no
        short = len(yes) == 1 and len(no) <= 1

        def judge(rows: list[int], ends: Tensor) -> Tensor:
            if states is not None:
                states.update(zip(rows, ends.double().cpu(), strict=True))
            return self._odds(ends) if short else ends[:, 0]

        if short or states is not None:
            found = self.reader.judge(texts, heads, torch.ones_like(heads), judge)
        if not short:
            both = [
                self.reader.continuations(
                    with_ends(texts, answer), heads, torch.full_like(heads, len(answer))
                )
                for answer in (yes, no)
                if answer
            ]
            found = both[0] - both[1] if no else both[0]
        scores: Float64[np.ndarray, " pairs"] = found.numpy()
        return scores

    def _odds(self, states: Tensor) -> Tensor:
        (yes,), no = self.answers.yes, self.answers.no
        return (
            self.model.log_odds(states, yes, no[0])
            if no
            else self.model.logits(states, [yes])[:, 0]
        )

    def _choose(
        self, prompt: Prompt, settings: LanguageSettings
    ) -> tuple[tuple[str, str], Answers, float]:
        """Return the answers as words and as tokens, and how much of the first token they hold together."""
        state = self._state_of_nothing()
        logs = self.model.likeliest(state)
        found = []
        for yes, no in answer_forms(settings):
            answers = Answers(prompt.answer(yes), prompt.answer(no) if no else ())
            refuse_alike((yes, no), answers)
            firsts = {ids[0] for ids in (answers.yes, answers.no) if ids}
            mass = float(sum(logs[entry].exp() for entry in firsts))
            found.append(((yes, no), answers, mass))
        best = max(found, key=lambda one: one[2])
        # A logit alone means something however rare the answer is; odds of two rare answers do not.
        if best[1].no and best[2] < LEAST_MASS:
            refuse_silence(self.model, best[0], best[2], logs)
        return best

    def _state_of_nothing(self) -> Tensor:
        texts, heads = self.reader.pairs([EMPTY])
        kept: list[Tensor] = []

        def keep(rows: list[int], states: Tensor) -> Tensor:  # noqa: ARG001 - there is one
            kept.append(states[0])
            return torch.zeros(1)

        self.reader.judge(texts, heads, torch.ones_like(heads), keep)
        return kept[0]


def refuse_silence(
    model: Weights, words: tuple[str, str], mass: float, logs: Float[Tensor, " vocabulary"]
) -> NoReturn:
    """Refuse a model that is about to say something else.

    Raises:
        UserError: With what it would say.
    """
    top = [model.tokenizer.decode([entry]) for entry in logs.topk(5).indices.tolist()]
    raise UserError(
        model.path,
        f"is not about to answer {' or '.join(map(repr, words))}: "
        f"they hold {mass:.2g} of the probability, most have {', '.join(map(repr, top))}",
        cure="Choose another --template, or give --yes and --no",
    )


def refuse_alike(words: tuple[str, str], answers: Answers) -> None:
    """Refuse answers of which one begins with all tokens of the other: their odds would mean nothing.

    Raises:
        UserError: If it is so.
    """
    size = min(len(answers.yes), len(answers.no))
    if size and answers.yes[:size] == answers.no[:size]:
        raise UserError(
            "--yes and --no", "are words that the tokenizer splits alike", got=words,
            cure="Give words of which neither begins with the other",
        )  # fmt: skip
