from collections.abc import Callable, Sequence

import numpy as np
import pytest

from embedtrain.encoding.shards import Shard
from embedtrain.mining.dense import DenseSearch, EncodedPairs, open_dense
from embedtrain.mining.filters import Filters
from embedtrain.mining.identity import first_rows, text_digest
from embedtrain.mining.miner import Miner
from embedtrain.mining.search import CandidateSource
from embedtrain.mining.settings import MiningConfig
from embedtrain.mining.task import MiningTask

NOTHING = np.zeros(0, dtype=np.int64)


@pytest.fixture
def build(tmp_path) -> Callable[..., Miner]:
    """Return a function that makes a miner over a toy task; sources default to exact search."""

    def make(
        task: MiningTask,
        encoded: EncodedPairs,
        sources: Sequence[CandidateSource] | None = None,
        guide_scores=None,
        probabilities=None,
        guarded=NOTHING,
        **settings: object,
    ) -> Miner:
        config = MiningConfig.model_validate(settings)
        identities = first_rows([text_digest(text) for text in task.documents])
        exact = open_dense(
            DenseSearch(), "dense", encoded, config.depth, cache=tmp_path, seed=0, shard=Shard()
        )
        filters = Filters(
            config=config,
            task=task,
            identities=identities,
            clusters=identities,
            guarded=guarded,
            teacher=encoded.score,
            guide=guide_scores,
            cross_encoder=probabilities,
        )
        return Miner(sources or [exact], filters)

    return make
