"""From word pieces to whole words: which pieces belong together, and an id for each word."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from embedtrain.models.pooling import positions
from embedtrain.ops.similarity import text_of_token
from embedtrain.packed import Texts, upload

BASE = 0x9E3779B97F4A7C15
WORD_STARTS = ("▁", "Ġ")
"""What SentencePiece and byte-level BPE put before the first piece of a word."""


class WholeWords(nn.Module):
    r"""Finds the words of a text from its token ids alone, for any tokenizer.

    WordPiece marks pieces that continue a word, SentencePiece and byte-level BPE pieces that start one;
    pieces without letters or digits stand alone. The id of a word is a 64-bit polynomial hash of its lower-case
    surface, $h(ab) = h(a) B^{|b|} + h(b)$, so it does not depend on how the word was cut.
    """

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        entries = max(tokenizer.get_vocab().values()) + 1
        # Vocabularies may have holes.
        pieces = [piece or "" for piece in tokenizer.convert_ids_to_tokens(range(entries))]
        special = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
        marked = sum(piece.startswith(WORD_STARTS) for piece in pieces) > len(pieces) // 20
        surfaces = [
            piece.removeprefix("##").lstrip("".join(WORD_STARTS)).lower() for piece in pieces
        ]
        lettered = [any(letter.isalnum() for letter in surface) for surface in surfaces]
        starts = [
            piece.startswith(WORD_STARTS) if marked else not piece.startswith("##")
            for piece in pieces
        ]
        columns = (
            torch.tensor([_signed(_hash(surface)) for surface in surfaces]),
            torch.tensor([_signed(pow(BASE, len(s), 2**64)) for s in surfaces]),
            torch.tensor(starts),
            torch.tensor(lettered),
            torch.tensor([piece in special for piece in pieces]),
        )
        # No buffers: words decide shapes, so they are found on the CPU wherever the model is.
        self.key, self.power, self.starts, self.lettered, self.special = columns

    def forward(
        self, ids: Int64[Tensor, " tokens"], lengths: Int64[Tensor, " texts"]
    ) -> tuple[Int64[Tensor, " tokens"], Bool[Tensor, " tokens"]]:
        """Return the id of each token's word, and which tokens are part of a word; all of it on the CPU.

        Special tokens are not, unless a text has nothing else: then its first token stands for it.
        """
        within = positions(lengths)
        special = self.special[ids]
        before = ids.roll(1)
        joined = (
            ~self.starts[ids]
            & self.lettered[ids]
            & self.lettered[before]
            & ~special
            & ~self.special[before]
            & (within > 0)
        )
        word = (~joined).cumsum(0) - 1
        first = torch.nonzero(~joined).squeeze(1)
        place = torch.arange(len(ids), device=ids.device) - first[word]
        hashes = self.key[ids[first]].clone()
        for number in range(1, int(place.max()) + 1):
            here = torch.nonzero(place == number).squeeze(1)
            hashes[word[here]] = hashes[word[here]] * self.power[ids[here]] + self.key[ids[here]]
        text = text_of_token(lengths)
        num_ordinary = torch.zeros_like(lengths).index_add_(0, text, (~special).long())
        return hashes[word], ~special | ((num_ordinary[text] == 0) & (within == 0))


def average_words(
    states: Float[Tensor, "tokens dim"], words: Texts
) -> tuple[Float[Tensor, "words dim"], Texts]:
    """Average the states of each distinct word of a text, all its pieces and all its occurrences.

    ``words`` holds the id of each token's word, on the CPU. Returns the means, and each text's distinct words in the
    order of their ids, on the CPU as well.

    Source: Hofstätter et al. (2022), https://arxiv.org/abs/2203.13088, "bag of unique whole words".
    """
    text = text_of_token(words.lengths)
    order = words.ids.argsort(stable=True)
    order = order[text[order].argsort(stable=True)]
    sorted_words, sorted_text = words.ids[order], text[order]
    new = torch.ones_like(sorted_words, dtype=torch.bool)
    new[1:] = (sorted_words[1:] != sorted_words[:-1]) | (sorted_text[1:] != sorted_text[:-1])
    group = new.cumsum(0) - 1
    counts = upload(torch.bincount(group).to(states.dtype), states.device)
    ordered = states.index_select(0, upload(order, states.device))
    sums = states.new_zeros(len(counts), states.shape[1])
    sums = sums.index_add(0, upload(group, states.device), ordered)
    lengths = torch.bincount(sorted_text[new], minlength=len(words))
    return sums / counts[:, None], Texts(sorted_words[new], lengths)


def _hash(surface: str) -> int:
    value = 0
    for letter in surface:
        value = (value * BASE + ord(letter) + 1) % 2**64
    return value


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
