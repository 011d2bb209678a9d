"""What the scorers of language models share: a prompt, a model that reads it, and counts of the work."""

import hashlib
import json
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from embedtrain.encoding.cache import hash_state
from embedtrain.encoding.language.prompts import Prompt
from embedtrain.encoding.pair_work import PairWork
from embedtrain.models.language.model import LanguageModel
from embedtrain.models.language.shared_prefix import Reading, TokenCount, read_states
from embedtrain.packed import Texts

Judge = Callable[[list[int], Float[Tensor, "states dim"]], Tensor]
"""Gives rows a number each from the states that were asked for, text by text."""


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
        identity = [
            self.model.tokenizer.backend_tokenizer.to_str(), prompt.text, prompt.length,
            prompt.query_length, self.model.precision, *further,
        ]  # fmt: skip
        text = json.dumps(identity, ensure_ascii=False, default=str)
        return hash_state(self.model.model, hashlib.sha256(text.encode()))

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
    ) -> Float64[Tensor, " texts"]:
        """Return a number for each text.

        Args:
            texts: Token ids, on the CPU.
            heads: How many tokens of each it may share with others.
            wanted: How many states at the end of each are judged.
            judge: Turns states into numbers.
        """
        found = torch.empty(len(texts), dtype=torch.float64)
        count = TokenCount()
        reading = Reading(texts, heads, wanted)
        for rows, states in read_states(self.model, reading, share=self.share, count=count):
            found[rows] = judge(rows, states).double().cpu()
        self.work.tokens += count.given
        self.work.padding += count.padding
        self.work.shared_tokens += count.given + count.padding - count.computed
        return found

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


def with_ends(texts: Texts, end: Sequence[int]) -> Texts:
    """Return texts with further tokens at the end of each."""
    last = torch.tensor(end, dtype=torch.int64)
    longer = [part for one in texts.each() for part in (one, last)]
    return Texts(torch.cat(longer), texts.lengths + len(last))
