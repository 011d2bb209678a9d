"""Workflow: a model folder gets a GGUF file, read back before it stays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from embedtrain.errors import UserError, missing_extra
from embedtrain.files import appearing, write_file
from embedtrain.locks import owns
from embedtrain.models.backbone.files import TanhLinear
from embedtrain.models.backbone.word_table import WordTable
from embedtrain.models.build import load_model
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.text_model import TextModel
from embedtrain.release.cards.llama_cpp import card_with_gguf
from embedtrain.release.export import card_of
from embedtrain.release.llama_cpp.families import FAMILIES, POSITIONS, Family, named_weights
from embedtrain.release.llama_cpp.tokens import write_tokens

GgufType = Literal["f32", "f16", "q8_0"]
FILE_TYPES: dict[GgufType, int] = {"f32": 0, "f16": 1, "q8_0": 7}
POOLING = {"mean": 1, "cls": 2, "last_token": 3}
BLOCK = 32
"""Numbers that share a scale in ``q8_0``."""
WHOLE = (POSITIONS, "token_types.weight")
"""Tables that llama.cpp wants in float32."""
MAX_DIFFERENCE = {"f32": 0.0, "f16": 1e-3, "q8_0": 1e-2}
"""Of a weight that was read back, relative to the largest one of its table."""


@owns("folder")
def export_gguf(folder: Path, kind: GgufType) -> Path:
    """Write ``model-KIND.gguf`` into a model folder, and into its card how to run it.

    llama.cpp cuts texts where the file's positions end: at the contract's longer length. Normalisation and prompts are
    the caller's business there; the prompts stand in the file as ``embedtrain.prompt.query`` and ``.document``.

    Raises:
        UserError: If the extra is missing, the file cannot say what the model does, or it reads back otherwise.
    """
    try:
        import gguf
    except ImportError:
        raise missing_extra("gguf", "gguf", "to write a GGUF file") from None
    model = load_model(str(folder))
    encoder = check_expressible(model, folder)
    path = folder / f"model-{kind}.gguf"
    with appearing(path) as building:
        _write(gguf, encoder, building, kind, folder.resolve().name)
        _read_back(gguf, encoder, building, kind)
    card = card_of(folder)
    if card is not None:
        write_file(folder / "README.md", card_with_gguf(card, encoder.contract, path.name))
    return path


def check_expressible(model: TextModel, folder: Path) -> DenseEncoder:
    """Return the model if llama.cpp can compute its vectors.

    Raises:
        UserError: Saying what there is no place for.
    """
    if not isinstance(model, DenseEncoder) or isinstance(model.backbone, WordTable):
        raise UserError(
            folder, "is no dense model with a transformer, and --gguf has no place for others",
            cure="Leave --gguf out",
        )  # fmt: skip
    if not model.is_portable or model.contract.long_inputs is not None:
        raise _refused(folder, "parts that only embedtrain computes")
    family = FAMILIES.get(model.backbone.config.model_type)
    if model.projection is not None and not _has_place(model.projection, family):
        raise _refused(folder, "a layer behind the pooling")
    if model.contract.pooling not in POOLING:
        raise _refused(folder, f"the pooling {model.contract.pooling}")
    if family is None:
        raise _refused(folder, f"a backbone of the family {model.backbone.config.model_type}")
    return model


def _has_place(projection: nn.Linear, family: Family | None) -> bool:
    """Whether llama.cpp has a layer like this behind the pooling: some have, of as many outputs as inputs."""
    is_square = projection.in_features == projection.out_features
    plain = projection.bias is None and not isinstance(projection, TanhLinear)
    return family is not None and bool(family.projection) and is_square and plain


def _weights(model: DenseEncoder) -> Iterator[tuple[str, Tensor]]:
    """Yield what a file holds of a model."""
    contract = model.contract
    family = FAMILIES[model.backbone.config.model_type]
    length = max(contract.query_length, contract.document_length)
    yield from named_weights(family, model.backbone.state_dict(), length)
    if model.projection is not None:
        yield (
            f"{family.projection}.weight",
            model.projection.weight.detach().to("cpu", torch.float32),
        )


def _refused(folder: Path, what: str) -> UserError:
    return UserError(folder, f"has {what}, for which GGUF has no place", cure="Use --onnx instead")


def _write(gguf: Any, model: DenseEncoder, path: Path, kind: GgufType, name: str) -> None:  # noqa: ANN401 - untyped
    config, contract = model.backbone.config, model.contract
    family = FAMILIES[config.model_type]
    length = max(contract.query_length, contract.document_length)
    writer = gguf.GGUFWriter(path, family.architecture)
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_pooling_type(gguf.PoolingType(POOLING[contract.pooling]))
    family.describe(writer, config)
    writer.add_string("embedtrain.prompt.query", contract.query_prompt)
    writer.add_string("embedtrain.prompt.document", contract.document_prompt)
    rows = len(model.backbone.get_input_embeddings().weight)
    write_tokens(writer, model.tokenizer, rows)
    if model.projection is not None:
        writer.add_dense_features_dims(family.projection, config.hidden_size, config.hidden_size)
    for named, weight in _weights(model):
        values, stored = _stored(gguf, named, weight, kind)
        writer.add_tensor(named, values, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _stored(gguf: Any, name: str, weight: Tensor, kind: GgufType) -> tuple[np.ndarray, Any]:  # noqa: ANN401 - untyped
    """Return the numbers of a weight as they are written, and their type if numpy has none like it."""
    values = np.ascontiguousarray(weight.numpy())
    if kind == "f32" or values.ndim < 2 or name in WHOLE:
        return values, None
    if kind == "f16" or values.shape[-1] % BLOCK:
        return values.astype(np.float16), None
    stored = gguf.GGMLQuantizationType.Q8_0
    return gguf.quants.quantize(values, stored), stored


def _read_back(gguf: Any, model: DenseEncoder, path: Path, kind: GgufType) -> None:  # noqa: ANN401 - untyped
    """Compare what a file holds with the model.

    Raises:
        UserError: If a weight is missing or another.
    """
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, weight in _weights(model):
        tensor = found.pop(name)
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(weight.shape)
        largest = float(weight.abs().max())
        if abs(values - weight.numpy()).max() > MAX_DIFFERENCE[kind] * largest:
            raise UserError(path, "holds other weights", got=name, cure="Please report this")
