"""Workflow: a tokenizer of one's own corpus, for an encoder from scratch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from embedtrain.data.pretraining.corpus import CorpusConfig, open_corpus
from embedtrain.errors import UserError
from embedtrain.files import appearing_folder
from embedtrain.locks import owns
from embedtrain.progress import progress_bar

TokenizerKind = Literal["wordpiece", "bpe", "unigram"]
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
SMALLEST = 300
"""Fewer tokens than bytes and special tokens leave nothing to learn."""


@owns("output")
def train_tokenizer(
    corpora: Sequence[CorpusConfig],
    output: Path,
    *,
    kind: TokenizerKind = "bpe",
    vocabulary_size: int = 30_000,
    lowercase: bool = True,
) -> int:
    """Train a tokenizer on text and write it as a folder that transformers loads.

    Texts are streamed, never held; every text becomes ``[CLS] ... [SEP]``.

    Args:
        corpora: What to read.
        output: The folder to write; it appears whole or not at all.
        kind: ``bpe`` on bytes as RoBERTa and ModernBERT (knows every character), ``wordpiece`` as BERT,
            ``unigram`` as SentencePiece. Only ``bpe`` gives the same tokens at every run: the trainers of
            the others go through hash tables whose order changes (tokenizers 0.23).
        vocabulary_size: Tokens at most, special ones included.
        lowercase: Whether capitals and small letters are one; ``wordpiece`` then drops accents too.

    Returns:
        The number of tokens, smaller where the corpus has too few words.

    Raises:
        UserError: If the corpus holds no text, ``output`` exists, or the vocabulary is too small.
    """
    if output.exists():
        raise UserError("--output", "exists", got=str(output), cure="Choose another or remove it")
    if vocabulary_size < SMALLEST:
        raise UserError(
            "--vocabulary-size", f"is less than {SMALLEST}", got=vocabulary_size, cure="Raise it"
        )
    tokenizer, trainer = _blank(kind, vocabulary_size, lowercase)
    tokenizer.train_from_iterator(_texts(corpora), trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    _save(tokenizer, output)
    return int(tokenizer.get_vocab_size())


def _texts(corpora: Sequence[CorpusConfig]) -> Iterator[str]:
    """Yield all texts, and complain if none holds anything."""
    found = False
    for config in corpora:
        with progress_bar(f"Reading {config.path}", None) as advance:
            for _, text in open_corpus(config).documents():
                found |= bool(text.strip())
                advance(1)
                yield text
    if not found:
        raise UserError(corpora[0].path, "holds no text", cure="Give a corpus")


def _save(tokenizer: Tokenizer, output: Path) -> None:
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **SPECIAL)
    with appearing_folder(output) as building:
        wrapped.save_pretrained(building)


def _blank(kind: TokenizerKind, size: int, lowercase: bool) -> tuple[Tokenizer, Any]:
    """Return an untrained tokenizer and its trainer."""
    special = list(SPECIAL.values())
    common = {"vocab_size": size, "special_tokens": special, "show_progress": False}
    lower = [normalizers.Lowercase()] if lowercase else []
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        return tokenizer, trainers.WordPieceTrainer(**common)
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *lower])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        return tokenizer, trainers.BpeTrainer(initial_alphabet=alphabet, **common)
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), *lower])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, trainers.UnigramTrainer(unk_token="[UNK]", **common)
