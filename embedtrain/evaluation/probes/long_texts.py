"""What probes of texts of growing length share: one sentence among others is what a query asks for.

Source: Zhu et al. (2024), https://arxiv.org/abs/2404.12096 (LongEmbed); texts are made here, in words.
"""

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from statistics import fmean

import numpy as np

from embedtrain.contract.texts import Tokenization
from embedtrain.evaluation.probes.base import Finding, ProbeWish
from embedtrain.evaluation.tasks.subject import Subject
from embedtrain.models.encoder import TextEncoder

METRIC = "ndcg_at_1"
"""Of one relevant document, so the share of queries whose document comes first."""
MakeTexts = Callable[[int, int, int], tuple[list[str], list[str]]]
"""Makes queries and documents of a length in words, for a number of queries and a seed; document ``i``
answers query ``i``, and those behind answer none."""


def score_lengths(subject: Subject, wish: ProbeWish, make: MakeTexts) -> list[Finding]:
    """Search at each length, and average over the lengths that the model reads whole, where there are any."""
    findings, whole = [], []
    window = subject.model.contract.document_length
    for length in wish.lengths:
        queries, documents = make(length, wish.size, wish.seed)
        found = subject.search(queries, documents, 1, "query")
        value = float(np.mean(found.indices[:, 0] == np.arange(len(queries))))
        findings.append(Finding(f"{length} words", METRIC, value))
        if fits_window(subject.model, documents):
            whole.append(value)
    if whole:
        setting = f"mean of lengths within {window} tokens: {len(whole)} of {len(findings)}"
        findings.append(Finding(setting, METRIC, fmean(whole)))
    return findings


def fits_window(model: TextEncoder, documents: Sequence[str]) -> bool:
    """Whether no document has more tokens than the contract's length."""
    window = model.contract.document_length
    # One token more than is kept is enough to see that something would be cut.
    longer = model.contract.model_copy(update={"document_length": window + 1})
    return all(
        len(ids) <= window for ids in Tokenization(model.tokenizer, longer)(documents, "document")
    )


def hide(sentence: str, filler: Sequence[str], length: int, rng: np.random.Generator) -> str:
    """Put a sentence at a random place among so many words of filler that ``length`` words result.

    The filler begins again where it is too short; a sentence longer than ``length`` stands alone.
    """
    words = list(islice(cycle(filler), max(0, length - len(sentence.split()))))
    place = int(rng.integers(len(words) + 1))
    return " ".join([*words[:place], sentence, *words[place:]])
