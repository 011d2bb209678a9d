"""One function within each text, whoever computes it: all give what the definition gives."""

import pytest
import torch
import varlen_stand_ins
from torch.nn.attention import flex_attention as flex_module
from torch.nn.attention.varlen import varlen_attn

from embedtrain.models.backbone.attention import grouped
from embedtrain.models.backbone.attention.attend import BACKENDS, attend
from embedtrain.models.backbone.attention.flex import document_mask
from embedtrain.models.backbone.attention.layout import lay_out
from embedtrain.models.backbone.attention.reference import flash_attn_varlen_func

CPU = torch.device("cpu")
SIZES = [150, 40, 40, 7, 1, 1]
PLAYED = ["varlen", "torch_flash", "flash_attn_2", "flash_attn_3", "kernels"]


@pytest.fixture
def kernels(monkeypatch):
    varlen_stand_ins.install(monkeypatch)


@pytest.fixture
def flex_backward(monkeypatch):
    """FlexAttention refuses gradients on a CPU, where its plain form computes them all the same."""
    monkeypatch.setattr(flex_module, "_validate_device", lambda query, key, value: None)
    monkeypatch.setattr(flex_module, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


def rows(heads=4, key_heads=2, head_dim=8, dtype=torch.float64, sizes=SIZES):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(
            sum(sizes), count, head_dim, generator=generator, dtype=dtype, requires_grad=True
        )
        for count in (heads, key_heads, key_heads)
    ]


def compare(backend, window=(-1, -1), causal=False, *, tolerance=1e-12, scale=None, **shape):
    layout = lay_out(shape.get("sizes", SIZES), CPU)
    found, expected = rows(**shape), rows(**shape)
    cu, longest = layout.cu_seqlens, layout.max_seqlen
    ours = attend(*found, cu, longest, window, causal, scale=scale, layout=layout, backend=backend)
    theirs = flash_attn_varlen_func(
        *expected, cu, cu, longest, longest, softmax_scale=scale, causal=causal, window_size=window
    )
    assert_same(found, ours, expected, theirs, tolerance)


def assert_same(found, ours, expected, theirs, tolerance=1e-12):
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(ours.shape, generator=generator, dtype=torch.float64).to(ours.dtype)
    ours.backward(gradient)
    theirs.backward(gradient)
    pairs = [(ours, theirs), *((x.grad, y.grad) for x, y in zip(found, expected, strict=True))]
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "window", [(-1, -1), (0, 0), (3, 3), (5, 2), (7, -1), (60, 60), (200, 200)]
)
def test_groups_give_what_the_definition_gives(window, causal, key_heads, monkeypatch):
    monkeypatch.setattr(grouped, "LEAST_BLOCK", 16)  # so that some texts are cut into blocks
    compare("grouped", window, causal, key_heads=key_heads)


@pytest.mark.parametrize("backend", PLAYED)
@pytest.mark.parametrize(
    ("window", "causal"), [((-1, -1), False), ((-1, -1), True), ((6, 6), False), ((6, 0), True)]
)
def test_every_kernel_is_asked_for_what_the_definition_gives(backend, window, causal, kernels):
    compare(backend, window, causal, scale=0.3)


@pytest.mark.parametrize("backend", ["varlen", "torch_flash", "flash_attn_3"])
def test_heads_that_are_not_of_whole_eights_are_filled_up(backend, kernels):
    compare(backend, head_dim=12)


@pytest.mark.parametrize("causal", [False, True])
def test_memory_efficient_attention_gives_what_the_definition_gives(causal, kernels):
    compare("efficient", causal=causal, scale=0.3)


@pytest.mark.parametrize(
    ("window", "causal"), [((-1, -1), False), ((-1, -1), True), ((6, 6), False), ((130, 0), True)]
)
def test_flex_attention_gives_what_the_definition_gives(window, causal, flex_backward):
    sizes = [300, 150, 40, 7, 1, 1]
    compare("flex", window, causal, dtype=torch.float32, tolerance=2e-5, sizes=sizes)


@pytest.mark.parametrize("backend", ["grouped", "flex"])
@pytest.mark.parametrize(
    ("window", "causal"), [((-1, -1), False), ((-1, -1), True), ((9, 9), False)]
)
def test_scores_are_capped(backend, window, causal, flex_backward):
    layout = lay_out(SIZES, CPU)
    cu, longest = layout.cu_seqlens, layout.max_seqlen
    found, expected = rows(dtype=torch.float32), rows(dtype=torch.float32)
    ours = attend(
        *found, cu, longest, window, causal, scale=2.0, softcap=1.5, layout=layout, backend=backend
    )
    theirs = flash_attn_varlen_func(
        *expected, cu, cu, longest, longest, softmax_scale=2.0, causal=causal, window_size=window,
        softcap=1.5,
    )  # fmt: skip
    assert_same(found, ours, expected, theirs, 2e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("backend", "window"),
    [("grouped", (-1, -1)), ("grouped", (6, 6)), ("efficient", (-1, -1)), ("flex", (-1, -1)),
     ("flex", (6, 6)), ("flash_attn_2", (-1, -1))],
)  # fmt: skip
def test_tokens_that_nobody_looks_at_only_look(
    backend, window, causal, kernels, flex_backward, monkeypatch
):
    if backend == "flash_attn_2" and causal:
        pytest.skip(
            "it would stand the last query beside the last key; the table does not choose it"
        )
    monkeypatch.setattr("embedtrain.models.backbone.attention.grouped.LEAST_BLOCK", 16)
    attended = [20, 40, 13, 7, 1, 1]
    layout = lay_out(SIZES, CPU, attended)
    dtype, tolerance = (torch.float32, 2e-5) if backend == "flex" else (torch.float64, 1e-12)
    found, expected = rows(dtype=dtype), rows(dtype=dtype)
    ours = attend(
        *found,
        layout.cu_seqlens,
        layout.max_seqlen,
        window,
        causal,
        layout=layout,
        backend=backend,
    )
    parts = []
    for q, k, v, seen in zip(*(x.split(SIZES) for x in expected), attended, strict=True):
        scores = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(2, 1)) * 8**-0.5
        columns = torch.arange(len(q))
        hidden = columns[None] >= seen
        if causal:
            hidden = hidden | (columns[None] > columns[:, None])
        if window[0] >= 0:
            hidden = hidden | ((columns[None] - columns[:, None]).abs() > window[0])
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        weights = weights.nan_to_num(0.0)  # who sees nothing gets nothing
        parts.append(torch.einsum("hqk,khd->qhd", weights, v.repeat_interleave(2, 1)))
    assert_same(found, ours, expected, torch.cat(parts), tolerance)


def test_texts_that_are_looked_at_whole_need_no_other_keys():
    assert lay_out(SIZES, CPU, SIZES).keys is None


def test_lengths_are_read_from_the_borders_where_nobody_gives_them():
    layout = lay_out(SIZES, CPU)
    q, k, v = rows()
    torch.testing.assert_close(
        attend(q, k, v, layout.cu_seqlens, 150),
        attend(q, k, v, layout.cu_seqlens, 150, layout=layout),
        rtol=0, atol=0,
    )  # fmt: skip


def test_blocks_of_a_window_cost_with_the_length_and_not_its_square(monkeypatch):
    """A text of 4,096 tokens and a window of 32: 4,096 x 128 scores and not 4,096 x 4,096."""
    scores = []
    product = torch.nn.functional.scaled_dot_product_attention

    def counting(q, k, *args, **kwargs):
        scores.append(q.shape[0] * q.shape[-2] * k.shape[-2])
        return product(q, k, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counting)
    compare(
        "grouped", (32, 32), dtype=torch.float32, tolerance=2e-5, sizes=[4096], heads=1, key_heads=1
    )
    assert scores == [4096 * 128]


@pytest.mark.parametrize("sizes", [[300, 150, 40, 7, 1, 1], [128, 128], [1], [129] * 5, [3] * 200])
@pytest.mark.parametrize("reach", [(-1, -1), (-1, 0), (0, 0), (5, 140)])
@pytest.mark.parametrize("shortened", [False, True])
def test_blocks_that_are_skipped_hold_no_pair_that_meets(sizes, reach, shortened):
    seen = [-(-size // 2) for size in sizes] if shortened else None
    layout, total = lay_out(sizes, CPU, seen), sum(sizes)
    mask = document_mask(layout, reach, CPU)
    places = torch.arange(total)
    zero = torch.tensor(0)
    pairs = mask.mask_mod(zero, zero, places[:, None], places[None])
    for row, (count, columns) in enumerate(
        zip(mask.kv_num_blocks[0, 0].tolist(), mask.kv_indices[0, 0].tolist(), strict=True)
    ):
        met = set(columns[:count])
        assert len(met) == count
        within = pairs[row * 128 : (row + 1) * 128]
        holding = {int(column) // 128 for column in within.any(0).nonzero()}
        assert holding <= met
        if seen is None:
            assert met == set(range(min(holding), max(holding) + 1))


@pytest.mark.parametrize(
    "backend", ["torch_flash", "flash_attn_2", "kernels", "efficient", "grouped"]
)
def test_dropout_is_handed_on(backend, kernels):
    layout = lay_out([400], CPU)
    one = torch.zeros(400, 2, 8)
    result = attend(one, one, one + 1, layout.cu_seqlens, 400, dropout=0.25, backend=backend)
    assert 0.97 < result.mean() < 1.03
    assert result.std() > 0.01


def test_the_stand_in_for_torchs_function_takes_what_that_takes():
    assert varlen_stand_ins.parameters_of(varlen_attn) == varlen_stand_ins.parameters_of(
        varlen_stand_ins.varlen_attn
    )


@pytest.mark.parametrize(
    ("operator", "stand_in"),
    [
        ("_flash_attention_forward", varlen_stand_ins.flash_operator),
        ("_efficient_attention_forward", varlen_stand_ins.efficient_operator),
    ],
)
def test_torchs_operators_take_what_their_stand_ins_take_and_have_gradients(operator, stand_in):
    """What has no public name may change: then this fails first, and not a user's run."""
    found = getattr(torch.ops.aten, operator)
    known = [argument.name for argument in found.default._schema.arguments]
    wanted = [one.split()[-1] for one in varlen_stand_ins.parameters_of(stand_in)]
    positional = wanted[: wanted.index("scale")]
    assert known[: len(positional)] == positional
    assert set(wanted) <= set(known)
    q = torch.empty(10, 4, 8, device="meta", dtype=torch.bfloat16, requires_grad=True)
    cu = torch.empty(3, device="meta", dtype=torch.int32)
    if operator == "_flash_attention_forward":
        result = found(q, q, q, cu, cu, 6, 6, 0.1, False, False, scale=1.0, window_size_left=3,
                       window_size_right=3)  # fmt: skip
    else:
        q = q[None]
        result = found(q, q, q, None, cu, cu, 6, 6, 0.1, 0, True, scale=1.0)
    assert result[0].grad_fn.name().startswith(("FlashAttention", "EfficientAttention"))


def test_every_backend_of_the_table_is_there():
    from embedtrain.models.backbone.attention.choice import CUDA_TABLE

    assert {"grouped", *(name for name, _, _ in CUDA_TABLE)} == set(BACKENDS)


def test_a_query_whose_window_holds_no_key_gets_zeros():
    q, k, v = rows(sizes=[6])
    result = flash_attn_varlen_func(
        q, k[:2], v[:2], torch.tensor([0, 6], dtype=torch.int32),
        torch.tensor([0, 2], dtype=torch.int32), 6, 2, causal=True,
    )  # fmt: skip
    assert result[:4].abs().max() == 0  # the last query stands beside the last key
    assert (result[4:].abs().amax((1, 2)) > 0).all()
    result.sum().backward()
    assert q.grad.isfinite().all()
