"""Stages ``infonce``, ``maxsim`` and ``linear``: forward and backward passes beside what others use.

``roofline`` is the share of the data sheet's peak that the products reach which no exact form can leave out:
three for InfoNCE and for the linear cross-entropy, one for MaxSim.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product as product_of

import torch
import torch.nn.functional as F
from gpu_report_setting import (
    DTYPES,
    Missing,
    Row,
    Setting,
    Step,
    attempt,
    measure,
    refuse_long,
    rounding,
    share,
    supported,
)
from torch import Tensor

from embedtrain.ops.infonce.loss import infonce
from embedtrain.ops.linear_cross_entropy import linear_cross_entropy
from embedtrain.ops.maxsim.scores import maxsim
from embedtrain.types import TokenEmbeddings

TEMPERATURE = 0.05
LARGEST_PLAIN = 16_384
"""Beyond this the scores of plain torch take more memory than anybody gives them."""
VOCABULARY, LABELLED = 30_522, 0.15
MAXSIM_SIZES = ((128, 180), (512, 180), (128, 1024), (4096, 180))
"""Queries and documents, tokens of a document."""
Loss = Callable[[], Tensor]


def infonce_rows(setting: Setting) -> Iterator[Row]:
    """Yield one row for each size, dimension, type and form; large batches first, which goals are about."""
    sizes = setting.pick((65_536, 16_384, 4_096), (64,))
    dims = setting.pick((384, 768, 128, 1024), (32,))
    for size, dim, product, form in product_of(sizes, dims, DTYPES, FORMS):
        row = {"form": form, "B": size, "D": dim, "type": product}
        yield attempt(row, partial(_infonce_cell, setting, form, size, dim, product))


def _infonce_cell(setting: Setting, form: str, size: int, dim: int, product: str) -> Row:
    operations = 3 * 2 * size**2 * dim
    refuse_long(setting, operations, product)
    if form.endswith("compiled") and dim != 384:
        raise Missing("takes long to compile: in 384 dimensions only")
    if form.startswith("plain") and size > LARGEST_PLAIN:
        raise Missing(f"its scores of {size} x {size} are not stored")
    torch.manual_seed(0)
    query, document = (
        F.normalize(torch.randn(size, dim, device=setting.device), dim=1)
        .to(DTYPES[product])
        .requires_grad_()
        for _ in range(2)
    )
    loss = FORMS[form](query, document)
    with rounding(setting, product):
        found = supported(lambda: measure(setting, _step(loss, [query, document])))
    return share(setting, operations, product, found)


def _step(loss: Loss, inputs: list[Tensor]) -> Step:
    return lambda: torch.autograd.grad(loss(), inputs)


def _ours(backend: str, query: Tensor, document: Tensor) -> Loss:
    places = torch.arange(len(query), device=query.device)
    positives = places[:, None]
    return lambda: (
        infonce(query, document, positives, TEMPERATURE, document_ids=places, backend=backend).loss
    )


def _plain(compiled: bool, query: Tensor, document: Tensor) -> Loss:
    labels = torch.arange(len(query), device=query.device)

    def loss(query: Tensor, document: Tensor) -> Tensor:
        scores = (query @ document.T).float() / TEMPERATURE
        return F.cross_entropy(scores, labels)

    run = torch.compile(loss) if compiled else loss
    return lambda: run(query, document)


def _by_torch(query: Tensor, document: Tensor) -> Loss:
    if not hasattr(F, "linear_cross_entropy"):
        raise Missing("torch.nn.functional.linear_cross_entropy is of torch 2.13 and later")
    labels = torch.arange(len(query), device=query.device)
    options = torch.nn.LinearCrossEntropyOptions()
    return lambda: F.linear_cross_entropy(query / TEMPERATURE, document, labels, options=options)


def _memeff(query: Tensor, document: Tensor) -> Loss:
    """Return memeff's loss of both directions, which is more than the others here compute."""
    try:
        from memeff import MemoryEfficientCLIPLoss
    except ImportError as error:
        raise Missing("memeff is not here") from error
    if query.device.type != "cuda":
        raise Missing("memeff needs CUDA")
    loss = MemoryEfficientCLIPLoss(TEMPERATURE, normalized_inputs=True, stable=False)
    return lambda: loss(query, document)


FORMS: dict[str, Callable[[Tensor, Tensor], Loss]] = {
    "embedtrain auto": partial(_ours, "auto"),
    "embedtrain fused": partial(_ours, "fused"),
    "embedtrain chunked": partial(_ours, "chunked"),
    "memeff, both directions": _memeff,
    "torch linear_cross_entropy": _by_torch,
    "plain torch": partial(_plain, False),
    "plain torch, compiled": partial(_plain, True),
}


def maxsim_rows(setting: Setting) -> Iterator[Row]:
    """Yield one row for each batch, document length, type and form; queries have 32 tokens of 128 numbers."""
    sizes = ((4, 12),) if setting.tiny else MAXSIM_SIZES
    for (size, length), product, form in product_of(sizes, DTYPES, MAXSIM_FORMS):
        row = {"form": form, "B": size, "document tokens": length, "type": product}
        yield attempt(row, partial(_maxsim_cell, setting, form, size, length, product))


def _maxsim_cell(setting: Setting, form: str, size: int, length: int, product: str) -> Row:
    operations = 2 * size**2 * 32 * length * 128
    refuse_long(setting, 3 * operations, product)
    scores = size**2 * 32 * length * 4
    if form.startswith("plain") and scores > 16 * 2**30:
        raise Missing("its similarities take more than 16 GiB")
    torch.manual_seed(0)
    query, document = (
        torch.randn(size, tokens, 128, device=setting.device).to(DTYPES[product]).requires_grad_()
        for tokens in (32, length)
    )
    loss = MAXSIM_FORMS[form](query, document)
    with rounding(setting, product):
        step = _step(lambda: loss().float().sum(), [query, document])
        found = supported(lambda: measure(setting, step))
    return share(setting, operations, product, found)


def _our_maxsim(backend: str, query: Tensor, document: Tensor) -> Loss:
    lengths = [torch.full((len(one),), one.shape[1], device=one.device) for one in (query, document)]  # fmt: skip

    def loss() -> Tensor:
        sides = (
            TokenEmbeddings(one.flatten(0, 1), length)
            for one, length in zip((query, document), lengths, strict=True)
        )
        return maxsim(*sides, backend=backend)

    return loss


def _plain_maxsim(query: Tensor, document: Tensor) -> Loss:
    return lambda: torch.einsum("qid,njd->qnij", query, document).amax(3).sum(2)


def _peer_maxsim(query: Tensor, document: Tensor) -> Loss:
    try:
        from late_interaction_kernels import maxsim as theirs
    except ImportError as error:
        raise Missing("late-interaction-kernels is not here") from error
    if query.device.type != "cuda":
        raise Missing("late-interaction-kernels needs CUDA")
    return lambda: theirs(query, document)


MAXSIM_FORMS: dict[str, Callable[[Tensor, Tensor], Loss]] = {
    "embedtrain auto": partial(_our_maxsim, "auto"),
    "embedtrain fused": partial(_our_maxsim, "fused"),
    "late-interaction-kernels": _peer_maxsim,
    "plain torch": _plain_maxsim,
}


def linear_rows(setting: Setting) -> Iterator[Row]:
    """Yield one row for each size, width, type and form: the head of a masked language model, 15 % labelled."""
    (vocabulary,) = setting.pick((VOCABULARY,), (128,))
    sizes = setting.pick((16_384, 4_096, 65_536), (64,))
    for tokens, dim, product in product_of(
        sizes, setting.pick((768, 384, 128, 1024), (32,)), DTYPES
    ):
        for form in ("embedtrain", "torch linear_cross_entropy", "plain torch"):
            row = {"form": form, "tokens": tokens, "D": dim, "type": product}
            cell = partial(_linear_cell, setting, form, tokens, vocabulary, dim, product)
            yield attempt(row, cell)


def _linear_cell(
    setting: Setting, form: str, tokens: int, vocabulary: int, dim: int, product: str
) -> Row:
    torch.manual_seed(0)
    device, dtype = setting.device, DTYPES[product]
    hidden = torch.randn(tokens, dim, device=device).to(dtype).requires_grad_()
    weight = (0.05 * torch.randn(vocabulary, dim, device=device)).to(dtype).requires_grad_()
    labels = torch.randint(vocabulary, (tokens,), device=device)
    labels[torch.rand(tokens, device=device) > LABELLED] = -100
    if form.startswith("torch") and not hasattr(F, "linear_cross_entropy"):
        raise Missing("torch.nn.functional.linear_cross_entropy is of torch 2.13 and later")
    losses: dict[str, Loss] = {
        "embedtrain": lambda: linear_cross_entropy(hidden, weight, labels),
        "torch linear_cross_entropy": lambda: F.linear_cross_entropy(
            hidden, weight, labels, options=torch.nn.LinearCrossEntropyOptions()
        ),
        "plain torch": lambda: F.cross_entropy((hidden @ weight.T).float(), labels),
    }
    operations = 3 * 2 * int((labels >= 0).sum()) * vocabulary * dim
    with rounding(setting, product):
        found = measure(setting, _step(losses[form], [hidden, weight]))
    return share(setting, operations, product, found)
