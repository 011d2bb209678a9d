"""What the scorers of language models share: a prompt, a model that reads it, and counts of the work."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from embedtrain.encoding.cache import hash_state
from embedtrain.encoding.language.prompts import Prompt
from embedtrain.encoding.pair_work import PairWork, computing_config
from embedtrain.models.language.model import LanguageModel
from embedtrain.models.language.shared_prefix import Reading, TokenCount, read_states
from embedtrain.packed import Texts
from embedtrain.precision import Chosen

Judge = Callable[[list[int], Float[Tensor, "states dim"]], Tensor]
"""Gives rows a number each, or several, from the states that were asked for, text by text."""


class Reader:
    """A language model behind a prompt.

    Args:
        model: What reads.
        prompt: What stands around the texts.
        share: Compute what pairs begin with once; switched off to measure what it gains.
    """

    def __init__(self, model: LanguageModel, prompt: Prompt, *, share: bool = True) -> None:
        self.model = model
        self.prompt = prompt
        self.share = share
        self.work = PairWork()

    def key(self, *further: object) -> str:
        """Return a hash of the weights, the tokenizer, the prompt, the lengths, the precision and what is given."""
        prompt = self.prompt
        lengths = prompt.length, prompt.query_length
        return key_of(self.model, prompt.text, *lengths, *further)

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> tuple[Texts, Int64[Tensor, " pairs"]]:
        """Return the tokens of pairs, and how many of each it may share with other pairs."""
        texts, heads, cut = self.prompt.join(pairs)
        self.work.pairs += len(pairs)
        self.work.cut_documents += cut
        return texts, heads

    def judge(
        self,
        texts: Texts,
        heads: Int64[Tensor, " texts"],
        wanted: Int64[Tensor, " texts"],
        judge: Judge,
    ) -> Float64[Tensor, "texts ..."]:
        """Return a number for each text, or several.

        Args:
            texts: Token ids, on the CPU.
            heads: How many tokens of each it may share with others.
            wanted: How many states at the end of each are judged.
            judge: Turns states into numbers.
        """
        return judged(self.model, self.work, Reading(texts, heads, wanted), judge, share=self.share)

    def answer_logs(
        self,
        texts: Texts,
        heads: Int64[Tensor, " texts"],
        answers: Sequence[Sequence[int]],
    ) -> Float64[Tensor, "texts answers"]:
        """Return the log-probability of each answer behind each text, up to a constant of the text.

        Answers of one token each need one reading; else each answer is read apart, and the constant is 0.
        """
        if all(len(one) == 1 for one in answers):
            entries = [one[0] for one in answers]
            one_each = torch.ones_like(heads)
            return self.judge(
                texts, heads, one_each, lambda _, states: self.model.logits(states, entries)
            )
        found = [
            self.continuations(with_ends(texts, one), heads, torch.full_like(heads, len(one)))
            for one in answers
        ]
        return torch.stack(found, 1)

    def continuations(
        self,
        texts: Texts,
        heads: Int64[Tensor, " texts"],
        sizes: Int64[Tensor, " texts"],
        *,
        mean: bool = False,
    ) -> Float64[Tensor, " texts"]:
        """Return the log-probability of the last ``sizes`` tokens of each text behind the others, in nats.

        Args:
            texts: Token ids, on the CPU.
            heads: How many tokens of each it may share with others; none of those counted.
            sizes: At least one for each.
            mean: Divide each by its number of tokens.
        """
        ids = texts.each()
        labels = [one[-size:] for one, size in zip(ids, sizes.tolist(), strict=True)]
        # The last token predicts nothing that is asked for.
        shorter = Texts(torch.cat([one[:-1] for one in ids]), texts.lengths - 1)

        def judge(rows: list[int], states: Tensor) -> Tensor:
            wanted = torch.cat([labels[row] for row in rows])
            logs = self.model.log_probabilities(states, wanted)
            of_each = torch.split(logs, [len(labels[row]) for row in rows])
            return torch.stack([one.mean() if mean else one.sum() for one in of_each])

        return self.judge(shorter, torch.minimum(heads, shorter.lengths), sizes, judge)


class PromptScorer:
    """What scorers of pairs share that ask one prompt about each."""

    model: LanguageModel
    reader: Reader

    @property
    def precision(self) -> Chosen:
        """What the network computes in."""
        return self.model.precision

    @property
    def work(self) -> PairWork:
        """What has been computed so far."""
        return self.reader.work


@runtime_checkable
class Weights(Protocol):
    """A loaded model of language, of whichever kind."""

    path: str
    tokenizer: Any
    model: Any
    precision: Chosen


def key_of(model: Weights, *stated: object) -> str:
    """Return a hash of the weights, the tokenizer, the precision and what is stated."""
    config = computing_config(model.model.config)
    identity = [model.tokenizer.backend_tokenizer.to_str(), config, model.precision, *stated]
    text = json.dumps(identity, ensure_ascii=False, default=str)
    return hash_state(model.model, text)


def judged(
    model: LanguageModel, work: PairWork, reading: Reading, judge: Judge, *, share: bool = True
) -> Float64[Tensor, "texts ..."]:
    """Return what a judge says of each text; the tokens are added to ``work``."""
    found = torch.empty(0, dtype=torch.float64)
    count = TokenCount()
    for rows, states in read_states(model, reading, share=share, count=count):
        values = judge(rows, states).double().cpu()
        if not len(found):
            found = values.new_empty(len(reading.texts), *values.shape[1:])
        found[rows] = values
    work.tokens += count.given
    work.padding += count.padding
    work.shared_tokens += count.given + count.padding - count.computed
    return found


def with_ends(texts: Texts, end: Sequence[int]) -> Texts:
    """Return texts with further tokens at the end of each, the same ones."""
    return with_own_ends(texts, [end] * len(texts))


def with_own_ends(texts: Texts, ends: Sequence[Sequence[int]]) -> Texts:
    """Return texts with further tokens at the end of each."""
    last = [torch.tensor(end, dtype=torch.int64) for end in ends]
    longer = [part for both in zip(texts.each(), last, strict=True) for part in both]
    return Texts(torch.cat(longer), texts.lengths + torch.tensor([len(end) for end in ends]))
