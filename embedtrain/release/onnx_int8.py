"""Smaller numbers in a graph of onnxruntime: int8 with ranges from texts, int8 with ranges of each batch, float16."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.release.graph_runs import Feed

SHARE = 0.5
"""How much of the spread of a layer's inputs is moved into its weights."""
WHOLE = ("LayerNormalization", "Softmax", "ReduceSum", "ReduceL2", "LpNormalization", "Div", "Clip")
"""Operators that float16 leaves in float32."""
LARGEST = 1e4
"""Of float16, so that a mask's lowest number does not become infinite."""


def write_dynamic(source: Path, path: Path) -> None:
    """Quantise weights per channel; each batch gives the ranges of its states, so that texts depend on their mates."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quietly():
        quantize_dynamic(source, path, per_channel=True, weight_type=QuantType.QInt8)


def write_static(source: Path, path: Path, feeds: Iterable[Feed]) -> None:
    """Quantise weights per channel and the inputs of products with them; the feeds give the ranges of inputs."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    left = iter(feeds)
    inferred = path.with_suffix(".inferred")
    with _quietly():
        # Symbolic inference stumbles over graphs of the newer exporter.
        quant_pre_process(source, inferred, skip_symbolic_shape=True)
        quantize_static(
            inferred, path, _Reader(left), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gather"],
            extra_options={
                # Products of states with states stay in float32, and so do all results: what
                # is lost there buys no time.
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gather"],
            },
        )  # fmt: skip
    inferred.unlink()


def write_float16(source: Path, path: Path) -> None:
    """Halve the weights; sums, divisions and normalisations stay in float32, and so do inputs and outputs."""
    import onnx
    from onnxruntime.transformers import float16

    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *WHOLE]
    with _quietly():
        halved = float16.convert_float_to_float16(
            onnx.load(source), keep_io_types=True, op_block_list=blocked, max_finite_val=LARGEST
        )
    # onnxruntime 1.31 casts a value once for each of its readers, under one name.
    once = {tuple(node.output): node for node in reversed(halved.graph.node)}
    nodes = [node for node in halved.graph.node if once[tuple(node.output)] is node]
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    onnx.save(halved, path)


@contextmanager
def smoothed(backbone: nn.Module, graph: nn.Module, feeds: Iterable[Feed]) -> Iterator[None]:
    r"""Move the spread of inputs over channels into weights, in this block: few channels have large numbers.

    $$W x = (W \operatorname{diag}(s)) (x / s), \quad s_j = \max |x_j|^{1/2} / \max_i |W_{ij}|^{1/2}$$

    Source: Xiao et al. (2023), SmoothQuant, https://arxiv.org/abs/2211.10438.
    """
    layers = {name: one for name, one in backbone.named_modules() if type(one) is nn.Linear}
    largest = _largest_inputs(layers, graph, feeds)
    kept = {name: layers[name].weight.data for name in largest}
    hooks = []
    for name, spread in largest.items():
        layer = layers[name]
        weights = layer.weight.data.abs().amax(dim=0)
        scale = (spread.clamp(min=1e-5) ** SHARE / weights.clamp(min=1e-5) ** (1 - SHARE)).clamp(
            min=1e-3
        )
        layer.weight.data = layer.weight.data * scale
        layer.register_buffer("smoothing", 1 / scale, persistent=False)
        hooks.append(layer.register_forward_pre_hook(_scale_input))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for name, weight in kept.items():
            layers[name].weight.data = weight
            del layers[name].smoothing


def _scale_input(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0] * layer.smoothing, *inputs[1:])


def _largest_inputs(
    layers: dict[str, nn.Linear], graph: nn.Module, feeds: Iterable[Feed]
) -> dict[str, Float[Tensor, " inputs"]]:
    """Return the largest absolute input of each channel of the layers that are used."""
    largest: dict[str, Tensor] = {}

    def look(name: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        found = inputs[0].abs().flatten(0, -2).amax(dim=0)
        largest[name] = torch.maximum(largest[name], found) if name in largest else found

    hooks = [layer.register_forward_pre_hook(partial(look, name)) for name, layer in layers.items()]
    with torch.no_grad():
        for feed in feeds:
            graph(torch.from_numpy(feed["input_ids"]), torch.from_numpy(feed["attention_mask"]))
    for hook in hooks:
        hook.remove()
    return largest


class _Reader:
    """Texts as the calibration of onnxruntime asks for them."""

    def __init__(self, feeds: Iterator[Feed]) -> None:
        self.feeds = feeds

    def get_next(self) -> Feed | None:
        return next(self.feeds, None)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep advice off the screen that is for those who write quantisers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
