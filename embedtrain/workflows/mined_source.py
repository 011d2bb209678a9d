"""A source whose negatives a retriever finds before training: mined once, kept in the cache, read as rows."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from embedtrain.data.examples import Source, SourceConfig
from embedtrain.data.given import name_given
from embedtrain.data.sources import open_source
from embedtrain.encoding.cache import model_key
from embedtrain.encoding.shards import Shard
from embedtrain.errors import UserError
from embedtrain.mining.settings import settings_of
from embedtrain.mining.task import load_mining_task, mining_task_of, with_corpora
from embedtrain.models.build import load_encoder
from embedtrain.precision import choose
from embedtrain.training.sources import RetrieverNegatives, TrainingSource
from embedtrain.workflows.evaluate.first_stage import is_model
from embedtrain.workflows.mine import mine_task


def mined_source(config: TrainingSource, wish: RetrieverNegatives, cache: Path) -> Source:
    """Mine for the queries of a source and open the rows; what was mined before is read again.

    The rows' fingerprint is that of what was mined, so a run does not go on with other negatives.

    Raises:
        UserError: If the retriever is no model of vectors, or the data cannot be mined.
    """
    if not is_model(wish.retriever):
        raise UserError(
            "data.sources: negatives.retriever",
            "is no model, and one has to judge what is found",
            got=wish.retriever,
            cure="Name a model, and where to search in mining.sources: [{kind: bm25}]",
        )
    own = mining_task_of(config, cache)
    task = with_corpora(own, [load_mining_task(path, config.split, cache) for path in wish.corpora])
    model = load_encoder(wish.retriever)
    precision = choose(wish.mining.precision, model.device.type)
    mining = wish.mining.model_copy(update={"precision": precision})
    parts = [task.fingerprint, model_key(model), settings_of(mining)]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    # Every rank comes here in its turn, and only the first finds work: there is nobody to share it with.
    folder = mine_task(model, task, cache / "mined" / key, mining, cache=cache, shard=Shard())
    rows = SourceConfig(path=str(folder.training), format="jsonl", limit=config.limit)
    return replace(open_source(rows, cache), place=f"{name_given(config.path)} (mined)")
