"""Open and tokenise what a recipe trains and measures on, with a progress bar for each."""

from pathlib import Path

from embedtrain.contract import Tokenization
from embedtrain.data.batches import DataConfig
from embedtrain.data.cache import default_cache
from embedtrain.data.sources import RetrievalTask, open_source
from embedtrain.data.sources import load_task as read_task
from embedtrain.data.tokenized import TokenizedSource, tokenize_source
from embedtrain.errors import UserError
from embedtrain.progress import progress_bar


def cache_of(config: DataConfig) -> Path:
    """Return the folder of caches that a recipe uses."""
    return Path(config.cache).expanduser() if config.cache else default_cache()


def prepare_sources(config: DataConfig, tokenization: Tokenization) -> list[TokenizedSource]:
    """Return the tokenised sources of a recipe, from the cache where it has them."""
    cache = cache_of(config)
    sources = []
    for source_config in config.sources:
        with progress_bar(f"Reading {source_config.path}", None) as advance:
            source = open_source(source_config, cache, lambda *_, advance=advance: advance(1))
        with progress_bar(f"Tokenising {source.place}", source.length) as advance:
            sources.append(tokenize_source(source, tokenization, cache, advance))
    return sources


def load_task(path: str, split: str) -> RetrievalTask:
    """Read a retrieval task."""
    with progress_bar(f"Reading {path} {split}", None) as advance:
        return read_task(path, split, progress=lambda *_: advance(1))


def check_batch_size(sources: list[TokenizedSource], batch_size: int) -> None:
    """Refuse a batch that would hold a row twice.

    Raises:
        UserError: If a source has fewer rows than a batch.
    """
    for source in sources:
        if len(source) < batch_size:
            raise UserError(
                "trainer.batch_size",
                f"is more than the {len(source)} rows of {source.place}",
                got=batch_size,
                cure="Lower it",
            )
