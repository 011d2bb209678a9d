"""An encoder-decoder is asked whether a document answers a query: log-odds of the first word of its answer.

Source: Nogueira et al. (2020), monoT5, https://arxiv.org/abs/2003.06713, which takes the logarithm of the first word's
share of both: the same order.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from embedtrain.encoding.language.prompts import (
    ANSWERS,
    MONOT5,
    answer_forms,
    open_prompt,
    token_ids,
)
from embedtrain.encoding.language.reader import key_of
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.encoding.language.yes_no import EMPTY, LEAST_MASS, refuse_silence
from embedtrain.encoding.pair_work import PairWork
from embedtrain.errors import UserError
from embedtrain.models.chunking import plan_chunks
from embedtrain.models.language.encoder_decoder import EncoderDecoder
from embedtrain.precision import Chosen

BATCH_TOKENS = 4096
"""Tokens that are read at once, padding included."""


class FirstWord:
    """Scores pairs by ``log p(yes) - log p(no)`` of the first word that the decoder would write.

    Args:
        model: What answers.
        settings: How it is asked.

    Raises:
        UserError: If an answer is not one token, states are asked for, or the model is about to say something else.
    """

    def __init__(self, model: EncoderDecoder, settings: LanguageSettings) -> None:
        self.model = model
        tokenizer = model.tokenizer
        if settings.gram:
            raise UserError(
                "--gram", "is of causal language models", got=model.path, cure="Leave it out"
            )
        self.prompt = open_prompt(
            tokenizer, settings.template, settings.instruction, default=MONOT5,
            length=min(settings.length, tokenizer.model_max_length), query_length=settings.query_length,
        )  # fmt: skip
        said = settings.yes is not None or settings.no is not None or settings.template in ANSWERS
        self.words = answer_forms(settings)[0] if said else ANSWERS[MONOT5]
        entries = [token_ids(tokenizer, word) for word in self.words]
        if any(len(entry) != 1 for entry in entries) or entries[0] == entries[1]:
            raise UserError(
                "--yes and --no", "must be two words of one token each for an encoder-decoder",
                got=self.words, cure="Give others",
            )  # fmt: skip
        self.entries = tuple(entry[0] for entry in entries)
        self.work = PairWork()
        self.mass = self._mass()
        self.shift = float(self._scores([EMPTY])[0]) if settings.centre else 0.0
        self.work = PairWork()

    @property
    def precision(self) -> Chosen:
        """What the network computes in."""
        return self.model.precision

    def key(self) -> str:
        """Return a hash of all that a score depends on."""
        prompt = self.prompt
        asked = [prompt.text, prompt.length, prompt.query_length, *self.entries, self.shift]
        return key_of(self.model, "first_word", *asked)

    def describe(self) -> dict[str, object]:
        """Return what the scores came from, for those who are to make them again."""
        yes, no = self.words
        return {
            "kind": "yes_no", "precision": self.precision, "template": self.prompt.text, "yes": yes, "no": no,
            "answer_mass": round(self.mass, 6), "subtracted": round(self.shift, 6), "scale": "log_odds",
        }  # fmt: skip

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs by log-odds."""
        return self._scores(pairs) - self.shift if pairs else np.empty(0)

    def _scores(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        texts, _, cut = self.prompt.join(pairs)
        found = np.empty(len(pairs))
        for rows in plan_chunks(texts.sizes, BATCH_TOKENS, padded=True):
            chunk = texts.select(rows)
            both = self.model.first_logits(chunk)[:, list(self.entries)].double().numpy()
            found[rows.numpy()] = both[:, 0] - both[:, 1]
            self.work.padding += int(chunk.sizes.max()) * len(chunk) - int(chunk.sizes.sum())
        self.work.pairs += len(pairs)
        self.work.tokens += int(texts.sizes.sum())
        self.work.cut_documents += cut
        return found

    def _mass(self) -> float:
        """Return how much of the first word both answers hold where nothing is asked; refuse a model that answers otherwise."""
        texts, _, _ = self.prompt.join([EMPTY])
        logs = self.model.first_logits(texts)[0].log_softmax(-1)
        mass = float(logs[list(self.entries)].exp().sum())
        if mass < LEAST_MASS:
            refuse_silence(self.model, self.words, mass, logs)
        return mass
