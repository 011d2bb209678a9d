"""Token pooling with gradient: similar tokens of a document become one vector, so that the index shrinks.

Source: Clavié et al. (2024), https://arxiv.org/abs/2409.14683, hierarchical pooling.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from embedtrain.ops.maxsim.token_clusters import pooled_labels
from embedtrain.packed import Texts
from embedtrain.types import TokenEmbeddings


def drawn(factors: Sequence[int], texts: Texts, training: bool) -> list[int]:
    """Return which of several factors each text is pooled by in training; none where there are none, or afterwards.

    Drawn from the text's own tokens, so that chunks, ranks and a resumed run agree; the same text always has the same.
    """
    if not factors or not training:
        return []
    pieces = torch.split(texts.on_host.ids, texts.on_host.lengths.tolist())
    return [factors[int(ids.sum()) % len(factors)] for ids in pieces]


def pool_embeddings(
    embeddings: TokenEmbeddings, factor: int | Sequence[int], *, normalized: bool = True
) -> TokenEmbeddings:
    """Replace the vectors of each cluster by their mean, with gradient; the clusters are taken as given.

    One vector is left of about ``factor``, which may be another for each text.
    """
    if embeddings.exact_match or embeddings.gates is not None:
        raise ValueError("words that are compared by id cannot be pooled")
    values = embeddings.tokens.detach().float().cpu().numpy()
    ends = embeddings.lengths.cumsum(0).tolist()
    labels, lengths, total = [], [], 0
    factors = [factor] * len(ends) if isinstance(factor, int) else factor
    for start, end, own in zip([0, *ends[:-1]], ends, factors, strict=True):
        found = pooled_labels(values[start:end], own)
        lengths.append(int(found.max()) + 1)
        labels.append(torch.from_numpy(found) + total)
        total += lengths[-1]
    group = torch.cat(labels).to(embeddings.tokens.device)
    counts = torch.bincount(group, minlength=total)[:, None].to(embeddings.tokens.dtype)
    sums = embeddings.tokens.new_zeros(total, embeddings.tokens.shape[1])
    pooled = sums.index_add(0, group, embeddings.tokens) / counts
    return TokenEmbeddings(
        F.normalize(pooled, dim=1) if normalized else pooled,
        torch.tensor(lengths, device=group.device),
        cls=embeddings.cls,
    )
