"""The searches that the settings of a mining name, opened."""

from functools import partial
from pathlib import Path
from typing import Any

from embedtrain.encoding.cache import embed_once, model_key
from embedtrain.encoding.shards import Shard
from embedtrain.errors import UserError
from embedtrain.mining.bm25 import Bm25Search, open_bm25
from embedtrain.mining.dense import DenseSearch, EncodedPairs, open_dense
from embedtrain.mining.late_interaction import EncodedTokens, TokensSearch, open_late_interaction
from embedtrain.mining.runs import open_run
from embedtrain.mining.search import CandidateSource, EncodedTask
from embedtrain.mining.settings import MiningConfig, Search
from embedtrain.mining.sparse import EncodedSparse, WordsSearch, open_sparse
from embedtrain.mining.task import MiningTask
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.pair_head import refuse_interaction
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.precision import Precision, choose


def encode_task(
    model: TextEncoder, task: MiningTask, cache: Path, shard: Shard, precision: Precision
) -> EncodedTask:
    """Encode a task under a model of any kind, or map what the cache has of it."""
    refuse_interaction(model, "mining and scoring")
    key, chosen = model_key(model), choose(precision, model.device.type)
    embed: Any = partial(embed_once, model, key, cache=cache, shard=shard, precision=chosen)
    read = task.read_by(model.contract)
    documents, queries = embed(read, "document"), embed(task.queries, "query")
    kind: type[EncodedPairs | EncodedTokens | EncodedSparse] = EncodedTokens
    if isinstance(model, DenseEncoder):
        kind = EncodedPairs
    elif isinstance(model, SparseEncoder):
        kind = EncodedSparse
    return kind(f"{key} {chosen}", queries, documents, str(model.device))


def open_sources(
    config: MiningConfig, teacher: EncodedTask, task: MiningTask, cache: Path, shard: Shard
) -> list[CandidateSource]:
    """Make the searches that the settings name; several of one kind are numbered."""
    own: Search = TokensSearch()
    if not isinstance(teacher, EncodedTokens):
        own = DenseSearch() if isinstance(teacher, EncodedPairs) else WordsSearch()
    opened: list[CandidateSource] = []
    for source in config.sources or (own,):
        before = sum(known.name.split(":")[0] == source.kind for known in opened)
        name = f"{source.kind}:{before + 1}" if before else source.kind
        if isinstance(source, DenseSearch | TokensSearch | WordsSearch):
            encoded = teacher
            if source.model is not None:
                student = load_encoder(source.model)
                encoded = encode_task(student, task, cache, shard, config.precision)
            opened.append(_open_model(config, source, name, encoded, cache, shard))
        elif isinstance(source, Bm25Search):
            opened.append(open_bm25(source, name, task))
        else:
            opened.append(open_run(source, name, task))
    return opened


def _open_model(
    config: MiningConfig,
    source: Search,
    name: str,
    encoded: EncodedTask,
    cache: Path,
    shard: Shard,
) -> CandidateSource:
    """Search with a model, which must be of the kind that the source says."""
    depth, seed = config.depth, config.seed
    if isinstance(source, DenseSearch) and isinstance(encoded, EncodedPairs):
        return open_dense(source, name, encoded, depth, cache=cache, seed=seed, shard=shard)
    if isinstance(source, TokensSearch) and isinstance(encoded, EncodedTokens):
        return open_late_interaction(source, name, encoded, depth, seed)
    if isinstance(source, WordsSearch) and isinstance(encoded, EncodedSparse):
        return open_sparse(source, name, encoded, depth, seed)
    raise UserError(
        f"sources: {name}",
        "searches with a model of another kind",
        cure="Use kind: dense for one vector per text, late_interaction for several, sparse for weights of words",
    )
