"""Which tokens are hidden: whole words, drawn on tensors for all texts and all draws at once.

A word is a run of tokens that begins where ``word_starts`` says (:mod:`embedtrain.data.pretraining.words` finds out);
special tokens belong to none and are never hidden. Nothing here loops over tokens, words or texts.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from embedtrain.packed import Texts

TokenMask = Bool[Tensor, " tokens"]


@dataclass(frozen=True)
class Words:
    """The words of several texts laid end to end.

    Attributes:
        of_token: The word of each token; -1 for a special token.
        texts: The text of each word.
        sizes: The tokens of each word that may be hidden.
        num_tokens: The tokens of each text that may be hidden.
    """

    of_token: Int64[Tensor, " tokens"]
    texts: Int64[Tensor, " words"]
    sizes: Int64[Tensor, " words"]
    num_tokens: Int64[Tensor, " texts"]

    @classmethod
    def find(cls, texts: Texts, word_starts: TokenMask, special: TokenMask) -> "Words":
        """Number the words; a text's first ordinary token begins one whatever ``word_starts`` says."""
        text_of_token = torch.repeat_interleave(torch.arange(len(texts)), texts.lengths)
        ordinary = (~special).nonzero().squeeze(1)
        owner = text_of_token[ordinary]
        starts = word_starts[ordinary].clone()
        starts[:1] = True
        starts[1:] |= owner[1:] != owner[:-1]
        words = starts.cumsum(0) - 1
        of_token = torch.full_like(texts.ids, -1)
        of_token[ordinary] = words
        return cls(
            of_token,
            owner[starts],
            torch.bincount(words, minlength=int(starts.sum())),
            torch.bincount(owner, minlength=len(texts)),
        )

    def tokens(self, chosen: Bool[Tensor, "words draws"]) -> Bool[Tensor, "tokens draws"]:
        """Return the tokens of the chosen words."""
        if len(chosen) == 0:
            return chosen.new_zeros(len(self.of_token), chosen.shape[1])
        found = chosen.index_select(0, self.of_token.clamp_min(0))
        return found.masked_fill_((self.of_token < 0)[:, None], False)


def mask_words(
    words: Words, ratio: float, generator: torch.Generator, *, num_draws: int = 1
) -> Bool[Tensor, "tokens draws"]:
    r"""Hide whole words of each text until ``ratio`` of its ordinary tokens are hidden.

    A text's words come in a random order; a word that would exceed the budget of $p\,n$ tokens is hidden with
    the probability that makes the expected number of hidden tokens exactly $p\,n$, and it is the last. One
    word of each text that has any is always hidden, which matters for texts of a few words only. Draws are
    independent. A ``ratio`` of 0 hides nothing.

    Source: whole-word masking is Devlin et al.'s (BERT, 2019); there the budget is rounded and counts special
    tokens as well.
    """
    keys = torch.rand(num_draws, len(words.sizes), generator=generator, dtype=torch.float64)
    lots = torch.rand(num_draws, len(words.sizes), generator=generator, dtype=torch.float64)
    return mask_words_by_keys(words, ratio, keys, lots)


def mask_words_by_keys(
    words: Words,
    ratio: float,
    keys: Float64[Tensor, "draws words"],
    lots: Float64[Tensor, "draws words"],
) -> Bool[Tensor, "tokens draws"]:
    """Hide words as :func:`mask_words` does; ``keys`` order them, ``lots`` decide about the last."""
    if ratio == 0:
        return words.tokens(torch.zeros_like(keys.T, dtype=torch.bool))
    order = (keys + words.texts).argsort(dim=1)  # keys below 1: words stay within their text
    sizes = words.sizes[order]
    ends = sizes.cumsum(1)
    counts = words.num_tokens
    before = ends - sizes - (counts.cumsum(0) - counts)[words.texts]
    budget = (ratio * counts.double())[words.texts]
    sorted_lots = lots.gather(1, order)
    hidden = (before + sorted_lots * sizes < budget) | (before == 0)
    return words.tokens(torch.zeros_like(hidden).scatter(1, order, hidden).T)


def mask_words_independently(
    words: Words, ratio: float, generator: torch.Generator, *, num_draws: int = 1
) -> Bool[Tensor, "tokens draws"]:
    """Hide each word with probability ``ratio``, whatever happens to the others; possibly none.

    Millions of draws are wanted for one batch, so they come as 16-bit numbers from a generator of numpy's
    that ``generator`` seeds: several times faster, and ``ratio`` is rounded to 1/65,536.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    lots = np.random.default_rng(seed).integers(
        0, 2**16, size=(len(words.sizes), num_draws), dtype=np.uint16
    )
    return words.tokens(torch.from_numpy(lots < round(ratio * 2**16)))


def extend_mask(
    words: Words, masked: TokenMask, ratio: float, union_ratio: float, generator: torch.Generator
) -> TokenMask:
    r"""Hide further words, so that ``union_ratio`` of the tokens are hidden where ``ratio`` were.

    Each word is added with probability $(p_u - p) / (1 - p)$: the union then hides $p_u$ in expectation.

    Source: SimLM, Wang et al. (2022), https://arxiv.org/abs/2207.02578.
    """
    extra = (union_ratio - ratio) / (1 - ratio)
    return masked | mask_words_independently(words, extra, generator)[:, 0]


def corrupt(
    ids: Int64[Tensor, " tokens"],
    masked: TokenMask,
    mask_id: int,
    vocabulary: Int64[Tensor, " ordinary"],
    generator: torch.Generator,
) -> Int64[Tensor, " tokens"]:
    """Replace hidden tokens: 80 % by the mask token, 10 % by a random ordinary one, 10 % stay.

    Source: Devlin et al. (BERT, 2019), https://arxiv.org/abs/1810.04805.
    """
    lots = torch.rand(len(ids), generator=generator)
    places = torch.randint(len(vocabulary), (len(ids),), generator=generator)
    replaced = torch.where(masked & (lots < 0.9), vocabulary[places], ids)
    return replaced.masked_fill(masked & (lots < 0.8), mask_id)
