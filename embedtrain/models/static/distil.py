"""Static word embeddings from a sentence encoder: a table of words whose sum is a text's vector."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor

from embedtrain.contract.texts import join_texts
from embedtrain.models.backbone.word_table import table_backbone
from embedtrain.models.chunking import plan_chunks
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.static.build import static_encoder
from embedtrain.packed import Texts

UNKNOWN = "[UNK]"
"""Row 0, which stays 0: words that the table lacks add nothing."""
CHUNK_TOKENS = 16_384


class Words:
    """Splits texts into words and numbers those of a vocabulary (lower case, most frequent first)."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        ids = {word: place for place, word in enumerate([UNKNOWN, *vocabulary])}
        self.ids = ids
        self.tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
        self.tokenizer.normalizer = normalizers.Lowercase()
        self.tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def __len__(self) -> int:
        return len(self.ids)

    def bags(self, texts: Sequence[str]) -> Texts:
        """Return the numbers of each text's words; a text without any has that of the unknown word."""
        found = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return join_texts([np.array(encoding.ids or [0], dtype=np.int64) for encoding in found])


def choose_words(texts: Sequence[str], size: int, min_count: int) -> Words:
    """Return the most frequent words of some texts; punctuation is no word."""
    split = pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in split.pre_tokenize_str(text.lower()) if word.isalnum())
    return Words([word for word, count in counts.most_common(size) if count >= min_count])


@torch.no_grad()
def contextual_rows(
    model: DenseEncoder, texts: Sequence[str], words: Words, per_word: int
) -> Float[Tensor, "words dim"]:
    """Return for each word the mean of its vectors in the texts: of its sub-tokens' states, then of its places.

    Args:
        model: The teacher; no prompt stands before the texts.
        texts: Sentences rather than passages.
        words: The vocabulary.
        per_word: Places after which a word is not looked at any more.
    """
    rows = torch.zeros(len(words), int(model.backbone.config.hidden_size))
    counts = torch.zeros(len(words))
    for start in range(0, len(texts), 1024):
        block = texts[start : start + 1024]
        encoded = model.tokenizer(
            list(block),
            truncation=True,
            max_length=model.contract.document_length,
            return_offsets_mapping=True,
        )
        together = join_texts([np.array(ids, dtype=np.int64) for ids in encoded["input_ids"]])
        places = [
            _words_of_tokens(text, offsets, words)
            for text, offsets in zip(block, encoded["offset_mapping"], strict=True)
        ]
        wanting = [bool((counts[torch.from_numpy(seen)] < per_word).any()) for _, _, seen in places]
        useful = torch.tensor(wanting).nonzero()[:, 0]
        for chosen in plan_chunks(together.lengths[useful], CHUNK_TOKENS, padded=True):
            chunk = useful[chosen]
            states = model.states(together.select(chunk).to(model.device), packed=False).cpu()
            owner, share, seen = _join(places, chunk)
            wanted = (owner > 0) & (counts[owner] < per_word)
            rows.index_add_(0, owner[wanted], states[wanted].float() * share[wanted, None])
            seen = seen[counts[seen] < per_word]
            counts.index_add_(0, seen, torch.ones(len(seen)))
    return rows / counts.clamp_min(1)[:, None]


def _words_of_tokens(
    text: str, offsets: Sequence[tuple[int, int]], words: Words
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Return each token's word, its share in that word's sub-tokens, and the words that occur."""
    spans = pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)
    ends = np.array([end for _, (_, end) in spans], dtype=np.int64)
    ids = np.array([words.ids.get(word.lower(), 0) for word, _ in spans], dtype=np.int64)
    last = np.array([end - 1 if end > start else -1 for start, end in offsets])
    occurrence = np.where(last >= 0, np.searchsorted(ends, last, side="right"), -1)
    occurrence[occurrence >= len(ids)] = -1
    sizes = np.bincount(occurrence[occurrence >= 0], minlength=len(ids))
    owner = np.where(occurrence >= 0, ids[occurrence] if len(ids) else 0, 0)
    share = np.where(occurrence >= 0, 1 / np.maximum(sizes[occurrence], 1) if len(ids) else 0, 0)
    present = ids[(sizes > 0) & (ids > 0)]
    return owner.astype(np.int64), share.astype(np.float32), present


def _join(
    places: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]], chunk: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    chosen = [places[row] for row in chunk.tolist()]
    owner, share, seen = (np.concatenate(parts) for parts in zip(*chosen, strict=True))
    return torch.from_numpy(owner), torch.from_numpy(share), torch.from_numpy(seen)


def sentence_components(
    rows: Float[Tensor, "words dim"], bags: Texts, dim: int, removed: int
) -> Float[Tensor, "words components"]:
    r"""Return the rows in the principal components of *sentences*, without the first few.

    $$r' = (r - \bar s)\, C_{k+1:k+d}^\top$$

    C are the components of the sentences' vectors, $\bar s$ their mean, k is ``removed``: what all sentences
    share says little about any of them.
    """
    sentences = bag_vectors(rows, bags, "mean").double()
    mean = sentences.mean(0)
    _, directions = torch.linalg.eigh((sentences - mean).T @ (sentences - mean))
    kept = directions.T.flip(0)[removed : removed + dim]
    changed: Tensor = ((rows.double() - mean) @ kept.T).float()
    changed[0] = 0
    return changed


def bag_vectors(
    rows: Float[Tensor, "words dim"], bags: Texts, mode: str = "sum"
) -> Float[Tensor, "texts dim"]:
    """Return the sum or the mean of each text's rows."""
    return F.embedding_bag(bags.ids, rows, bags.lengths.cumsum(0) - bags.lengths, mode=mode)


def similarity_loss(
    student: Float[Tensor, "texts dim"],
    teacher: Float[Tensor, "texts teacher_dim"],
    temperature: float = 0.05,
) -> Float[Tensor, ""]:
    r"""Return $-\frac{1}{B} \sum_i \sum_{j \ne i} p_{ij} \log q_{ij}$: in-batch cosines of the teacher and of the student.

    p and q are softmaxes of cosines over the other texts of the batch. At least the entropy of p, reached where
    the cosines agree.
    """
    own = torch.eye(len(student), dtype=torch.bool)

    def logits(vectors: Tensor) -> Tensor:
        unit = F.normalize(vectors, dim=1)
        return (unit @ unit.T / temperature).masked_fill(own, torch.finfo(unit.dtype).min)

    expected = logits(teacher).softmax(1)
    return -(expected * logits(student).log_softmax(1)).masked_fill(own, 0).sum(1).mean()


def distil(
    rows: Float[Tensor, "words dim"],
    bags: Texts,
    teacher: Float[Tensor, "texts teacher_dim"],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> Float[Tensor, "words dim"]:
    """Return the table trained so that sums of its rows have the teacher's similarities.

    The lengths of rows are learned with them: frequent words shrink. Adam, gradients clipped at 5.
    """
    table = torch.nn.Parameter(rows.clone())
    optimizer = torch.optim.Adam([table], lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randperm(len(bags), generator=generator)[:batch_size]
        loss = similarity_loss(bag_vectors(table, bags.select(chosen)), teacher[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([table], 5.0)
        optimizer.step()
        with torch.no_grad():
            table[0] = 0
    return table.detach()


def words_encoder(words: Words, rows: Float[Tensor, "words dim"]) -> DenseEncoder:
    """Return the table as an encoder: ready to use, to train on, and to save."""
    backbone = table_backbone(rows, words.tokenizer, "words", Path())
    return static_encoder(backbone, DenseConfig(backbone="words"))
