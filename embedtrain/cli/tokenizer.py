"""The command that trains a tokenizer."""

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = ("embedtrain tokenizer corpus.jsonl --vocabulary-size 16000 --output my-tokenizer",)


def tokenizer(
    paths: Annotated[
        list[str],
        typer.Argument(help=".txt, .jsonl, .csv, .parquet (also .gz), globs, folders or Hub ids."),
    ],
    output: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    kind: Annotated[
        Literal["bpe", "wordpiece", "unigram"],
        typer.Option(help="As RoBERTa and ModernBERT, as BERT, or as SentencePiece."),
    ] = "bpe",
    vocabulary_size: Annotated[int, typer.Option(help="Tokens, special ones included.")] = 30_000,
    lowercase: Annotated[bool, typer.Option(help="Make capitals small letters.")] = True,
    column: Annotated[str | None, typer.Option(help="Name of the text column.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Read the first texts of each path only.")
    ] = None,
) -> None:
    """Train a tokenizer on your corpus, for an encoder from scratch (model.architecture)."""
    from embedtrain.data.pretraining.corpus import CorpusConfig
    from embedtrain.workflows.tokenizer import train_tokenizer

    corpora = [CorpusConfig(path=path, column=column, limit=limit) for path in paths]
    size = train_tokenizer(
        corpora, output, kind=kind, vocabulary_size=vocabulary_size, lowercase=lowercase
    )
    typer.echo(f"{output}: {size:,} tokens")
