"""InfoNCE over any number of candidates: the public function, its definition and its backends."""

from collections.abc import Callable
from typing import Unpack

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.errors import UserError
from embedtrain.ops.backend import Backend, load_fused
from embedtrain.ops.choices import Choice, announce, choose, may_choose
from embedtrain.ops.infonce.chunked import infonce_chunked
from embedtrain.ops.infonce.problem import (
    PLAIN,
    InfoNCEOptions,
    InfoNCEOutput,
    InfoNCEProblem,
    Known,
    Temperature,
    make_problem,
)
from embedtrain.ops.infonce.reference import Scores, infonce_reference

__all__ = ["InfoNCEOptions", "InfoNCEOutput", "infonce"]


def infonce(  # the definition of every option stands here, once: longer than 40 lines
    query: Float[Tensor, "queries dim"],
    document: Float[Tensor, "documents dim"],
    positives: Int64[Tensor, "queries positives"],
    temperature: Temperature,
    *,
    backend: Backend = "auto",
    **known: Unpack[Known],
) -> InfoNCEOutput:
    r"""Make each query prefer its positives to all other candidates of the batch.

    With $s_{ij} = \langle q_i, d_j\rangle / \tau$, positives $P_i$ (the columns of row i of
    ``positives``), negatives $N_i$ (below) and $R_i = \sum_{j \in N_i} e^{s_{ij}}$ the loss of a query is

    - ``average``: $\frac{1}{|P_i|} \sum_{p \in P_i} -\log \frac{e^{s_{ip}}}{\sum_{p' \in P_i} e^{s_{ip'}} + R_i}$
      (SupCon "out"; plain InfoNCE for one positive),
    - ``any``: $-\log \frac{\sum_{p} e^{s_{ip}}}{\sum_{p} e^{s_{ip}} + R_i}$ (MIL-NCE: one good positive is enough),
    - ``decoupled``: $\frac{1}{|P_i|} \sum_{p} -\log \frac{e^{s_{ip}}}{e^{s_{ip}} + R_i}$ (positives never compete),

    and the result is $\frac{1}{B} \sum_i L_i$ (``mean``) or $\sum_i L_i$ (``sum``).

    **Negatives.** All documents but $P_i$ and those whose id equals the id of one of $P_i$ or stands in row
    i of ``known_positives``; ``negatives="own"`` keeps only those whose owner is query i, ``"others"`` only
    those whose owner is another query (ColBERT v2's in-batch term). With
    ``false_negative_margin`` m, candidates of every direction whose similarity exceeds
    $b_i - m$ (``absolute``) or $b_i - m |b_i|$ (``relative``) are left out too, $b_i$ being the similarity of the
    best positive.

    **Directions.** Let $d_i$ be the first positive of query i, $s$ still divided by $\tau$. Further terms are
    ``document_to_query`` $\langle d_i, q_k\rangle$ (own query included as the positive, without queries that
    $d_i$ answers), ``query_to_query`` $\langle q_i, q_k\rangle$ (without i and queries of the same id),
    ``document_to_document`` $\langle d_i, d_j\rangle$ (without documents that query i owns or that answer it).
    ``joint``: all terms stand in one denominator; the positive then stands there once per direction that
    holds it (so one lonely pair costs $\log 2$ with both), as the first positive in ``average`` and ``any`` and as p
    itself in ``decoupled``. ``per_direction``: the mean of one loss per direction, that of
    ``document_to_query`` with the first positive.

    **Positive margin** $m_+$ puts $s_{ip} - m_+ / \tau$ in the place of every positive's $s_{ip}$ (additive-margin softmax).
    **Hardness** $\alpha$ adds $\alpha\,\mathrm{sg}(\langle q_i, d_j\rangle)$ to the query-to-document logits of negatives.
    **Label smoothing** $\epsilon$ replaces the target logit $t_i$ in $\log Z_i - t_i$ by
    $(1-\epsilon) t_i + \epsilon \cdot \mathrm{mean}$ of all logits in $Z_i$.

    Embeddings come normalised where the similarity is cosine. Logits and sums are float32 (float64 for
    float64 inputs) whatever the input type. A query with one positive and no negatives costs 0.

    Args:
        query: Queries of this process.
        document: Candidates of the whole batch, of all ranks where gathered.
        positives: Columns of ``document``, distinct in a row, -1 unused; the first is always used.
        temperature: One number; a tensor receives its gradient.
        backend: ``auto`` is ``chunked`` on a CPU and goes by :mod:`embedtrain.ops.choices` on CUDA.
        known: Ids, owners, options and more: :class:`embedtrain.ops.infonce.problem.Known`.

    Also called in-batch softmax, NT-Xent, multiple-negatives ranking; CLIP's loss with
    ``document_to_query`` per direction.

    Source: van den Oord et al. (2018), https://arxiv.org/abs/1807.03748; several positives: Khosla et al.
    (2020), https://arxiv.org/abs/2004.11362, Miech et al. (2020), https://arxiv.org/abs/1912.06430, Gupta et
    al. (2024), https://arxiv.org/abs/2310.10636; joint directions: Li et al. (2023),
    https://arxiv.org/abs/2308.03281; margins: Moreira et al. (2024), https://arxiv.org/abs/2407.15831;
    hardness: Lan et al. (2025), https://arxiv.org/abs/2503.04812; positive margin: Yang et al. (2019),
    https://arxiv.org/abs/1902.08564.
    """
    problem = make_problem(query, document, positives, temperature, **known)
    if backend == "auto":
        backend = choose_backend(problem)
    with torch.autocast(query.device.type, enabled=False):  # no logits in half precision
        if backend == "reference":
            return infonce_reference(problem)
        if backend == "fused":
            output: InfoNCEOutput = load_fused("infonce").infonce_fused(problem)
            return output
        return infonce_chunked(problem)


def choose_backend(
    problem: InfoNCEProblem, lacks: Callable[[InfoNCEProblem], str] | None = None
) -> Backend:
    """Return what ``auto`` takes: fused where the table prefers it and the kernels support the problem.

    ``lacks`` says what the kernels do not support; without it the plain form's answer counts.
    """
    query, document = problem.query, problem.document
    if not may_choose(query.device):
        return "chunked"
    size = query.shape[1], len(query) * len(document)
    choice = choose("infonce", query.device, query.dtype, *size)
    if choice.backend == "fused":
        obstacle = (lacks or load_fused("infonce").unsupported)(problem)
        choice = Choice("chunked", f"the kernels do not support {obstacle}") if obstacle else choice
    announce("infonce", choice)
    return choice.backend


def infonce_of_scores(
    scores: Float[Tensor, "queries documents"],
    positives: Int64[Tensor, "queries positives"],
    temperature: Temperature,
    *,
    transposed: Float[Tensor, "queries all_queries"] | None = None,
    **known: Unpack[Known],
) -> InfoNCEOutput:
    """Compute :func:`embedtrain.ops.infonce.loss.infonce`, which defines every argument, from given scores.

    Args:
        scores: Of every query and document.
        positives: Columns of ``scores``.
        temperature: One number.
        transposed: Scores of all queries with each query's first positive, for ``document_to_query``;
            without it they are taken from ``scores``, which then must hold all queries.
        known: As for ``infonce``; directions between two queries or two documents have no MaxSim and are
            refused.
    """
    options = known.get("options", PLAIN)
    if {"query_to_query", "document_to_document"} & set(options.directions):
        raise UserError(
            "objective.directions",
            "compare texts of one side, which late interaction does not define",
            got=options.directions,
            cure="Use query_to_document and document_to_query",
        )
    if transposed is not None:
        known["all_query"] = scores.new_empty(transposed.shape[1], 0)
    query, document = scores.new_empty(len(scores), 0), scores.new_empty(scores.shape[1], 0)
    problem = make_problem(query, document, positives, temperature, **known)
    if transposed is None and "document_to_query" in options.directions:
        transposed = scores[:, positives[:, 0]].T
    with torch.autocast(scores.device.type, enabled=False):
        return infonce_reference(problem, Scores(scores.to(problem.dtype), transposed))
