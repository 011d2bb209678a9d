"""Cross-encoders as scorers of texts: each text is tokenised once, each distinct pair is read once, without padding."""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from jaxtyping import Float64

from embedtrain.encoding.cache import hash_state
from embedtrain.encoding.pair_work import PairWork, computing_config
from embedtrain.errors import UserError
from embedtrain.models.backbone.laid_out import LaidOutProducts, can_lay_out
from embedtrain.models.chunking import Execution, plan_chunks
from embedtrain.models.cross_encoder.build import load_cross_encoder
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.packed import Texts
from embedtrain.precision import Chosen, Precision, choose, computing

PAIRS_AT_ONCE = 16_384
"""Pairs that are sorted by length together."""
CPU_TOKENS = 2_048
"""Tokens that a CPU computes at once: its caches hold what a layer makes of them, which spares up to a tenth of the time."""


class CrossEncoder:
    """Scores pairs of texts by a classifier with one output, or with two of which the second means relevant.

    Args:
        path: Folder or Hub id, of whichever library; or the model itself.
        batch_size: Pairs of full length that are computed at once, of shorter ones as many more; on a CPU fewer.
        precision: What the network computes in.
        instruction: Name of one of the model's, put before every query.

    Raises:
        UserError: If it cannot be loaded, knows no such instruction, or has classes of pairs in
            place of a score.
    """

    precision: Chosen = "fp32"

    def __init__(
        self,
        path: str | CrossEncoderModel,
        *,
        batch_size: int = 32,
        precision: Precision = "fp32",
        instruction: str | None = None,
    ) -> None:
        self.model = load_cross_encoder(path) if isinstance(path, str) else path
        if self.model.contract.classes:
            raise UserError(
                path if isinstance(path, str) else "the cross-encoder",
                "tells classes of pairs apart and has no score to order them by",
                got=self.model.contract.classes,
                cure="Give a model with one output",
            )
        if instruction is not None:
            self.model.contract = self.model.contract.under(instruction)
        self.precision = choose(precision, self.model.device.type)
        tokens = batch_size * self.model.contract.pair_length
        if self.model.device.type == "cpu":
            tokens = min(tokens, CPU_TOKENS)
        self.execution = Execution(tokens)
        self.work = PairWork()

    def key(self) -> str:
        """Return a hash of the weights, the config, the tokenizer, the template, the lengths and the precision."""
        model = self.model
        contract = model.contract.model_dump_json(exclude={"says_probability"})
        identity = [
            contract,
            str(model.parts),
            self.precision,
            model.tokenization.fingerprint("query"),
            computing_config(model.whole.config),
        ]
        return hash_state(model, "\n".join(identity))

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs: log-odds of being relevant.

        What a pair is computed with depends only on the pairs given, so equal calls give equal bits.
        """
        known = dict.fromkeys((query, document) for query, document in pairs)
        rows = {pair: row for row, pair in enumerate(known)}
        distinct, scores = list(rows), np.empty(len(rows))
        training = self.model.training
        self.model.eval()
        try:
            # Where processes wait for each other's chunks, none may have a block more than another.
            together = PAIRS_AT_ONCE if self.execution.agree is None else max(1, len(distinct))
            for start in range(0, len(distinct), together):
                block = distinct[start : start + together]
                scores[start : start + len(block)] = self._score(block)
        finally:
            self.model.train(training)
        self.work.pairs += len(pairs)
        return scores[[rows[query, document] for query, document in pairs]]

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Return the probability of each pair to be relevant."""
        probabilities: Float64[np.ndarray, " pairs"] = 1 / (1 + np.exp(-self.logits(pairs)))
        return probabilities

    def _score(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        before = self.model.num_cut
        joined = self.model.pairs_of(pairs)
        self.work.cut_documents += self.model.num_cut - before
        return self.score_tokens(joined)

    @torch.no_grad()
    def score_tokens(self, pairs: Texts) -> Float64[np.ndarray, " pairs"]:
        """Score pairs that are token ids already; for whoever keeps the model in evaluation mode."""
        device = self.model.device
        with computing(self.precision, device.type):
            there = pairs.to(device)
            alone = self.execution.agree is None  # weights may be spread over processes else
            laid_out = alone and can_lay_out(device, len(pairs.ids))
            with LaidOutProducts(self.model) if laid_out else nullcontext():
                found = self.model.score(there, self.execution)
            self._count(there)
        scores: Float64[np.ndarray, " pairs"] = found.double().cpu().numpy()
        return scores

    def _count(self, pairs: Texts) -> None:
        """Add up tokens, and the padding beside them where the backbone needs some, of pairs as they were scored."""
        self.work.tokens += int(pairs.sizes.sum())
        if not self.model.packs(pairs):
            chunks = plan_chunks(pairs.sizes, self.execution.chunk_tokens, padded=True)
            for rows in chunks:
                sizes = pairs.sizes[rows]
                self.work.padding += int((sizes.max() - sizes).sum())
