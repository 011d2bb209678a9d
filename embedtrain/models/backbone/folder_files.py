"""JSON files of a model folder, of whichever library: what is read of them is checked, all else is ignored."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from embedtrain.errors import UserError
from embedtrain.files import read_json

Count = Annotated[int, Field(gt=0, le=2**31)]
"""How many of something: beyond this, no machine holds the tensors."""
Form = TypeVar("Form", bound=BaseModel)
CURE = "Correct it, or copy the folder anew"


class FolderFile(BaseModel):
    """A file that other tools write too: unknown keys are theirs, known ones must be of the right type."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class AnyFile(RootModel[dict[str, Any]]):
    """A file whose keys the reader judges himself."""


class BackboneFile(FolderFile):
    """``config.json``. The families of transformers name their sizes differently; these names are common."""

    model_type: str | None = None
    architectures: list[str] | None = None
    hidden_size: Count = 1
    num_hidden_layers: Count = 1
    num_attention_heads: Count = 1
    vocab_size: Count = 1
    layer_norm_eps: float = Field(default=0.0, ge=0, le=1)
    rms_norm_eps: float = Field(default=0.0, ge=0, le=1)
    norm_eps: float = Field(default=0.0, ge=0, le=1)


class ModuleEntry(FolderFile):
    """A module of sentence-transformers; its type is a name to compare, nothing is imported by it."""

    type: str
    path: str

    @property
    def kind(self) -> str:
        """The last part of the type: ``Pooling``."""
        return self.type.rsplit(".", 1)[-1]


class ModulesFile(RootModel[list[ModuleEntry]]):
    """``modules.json``: what runs, one after the other."""


class PoolingFile(FolderFile):
    """``1_Pooling/config.json``: one name, or a flag for each name."""

    model_config = ConfigDict(extra="allow")

    pooling_mode: str | None = None
    include_prompt: bool = True
    __pydantic_extra__: dict[str, Any]

    def modes(self) -> list[str]:
        """Return what is switched on: the one name, else the names of the flags.

        Raises:
            ValueError: If a flag is no boolean.
        """
        if self.pooling_mode is not None:
            return [self.pooling_mode]
        flags = {k: v for k, v in self.__pydantic_extra__.items() if k.startswith("pooling_mode_")}
        for name, value in flags.items():
            if not isinstance(value, bool):
                raise ValueError(f"{name} is neither true nor false")  # noqa: TRY004 - for `reading`
        return [name for name, value in flags.items() if value]


class DenseFile(FolderFile):
    """``config.json`` of a linear layer."""

    in_features: Count
    out_features: Count
    bias: bool = True
    activation_function: str = "Identity"
    use_residual: bool = False


class SettingsFile(FolderFile):
    """``config_sentence_transformers.json``, with what PyLate writes into it."""

    model_type: str | None = None
    prompts: dict[str, str | None] | None = None
    similarity_fn_name: str | None = None
    truncate_dim: Count | None = None
    activation_fn: str | None = None
    default_prompt_name: str | None = None
    max_active_dims: Count | None = None
    query_prefix: str | None = None
    document_prefix: str | None = None
    query_length: Count | None = None
    document_length: Count | None = None
    do_query_expansion: bool = True
    attend_to_expansion_tokens: bool | None = None
    skiplist_words: list[str] | None = None

    def texts(self) -> dict[str, str]:
        """Return the prompts that are not null."""
        return {name: text for name, text in (self.prompts or {}).items() if text is not None}


class Expansion(FolderFile):
    """How sentence-transformers fills queries up."""

    strategy: str | None = None
    length: Count | None = None
    attend: bool | None = None


class LengthFile(FolderFile):
    """``sentence_bert_config.json``."""

    max_seq_length: Count | None = None
    query_length: Count | None = None
    document_length: Count | None = None
    query_expansion: Expansion | None = None


class MaskFile(FolderFile):
    """``config.json`` of ``MultiVectorMask``."""

    keep_only_token_ids: list[int] | None = None
    skiplist_words: list[str] | None = None


class TokenPoolingFile(FolderFile):
    """``config.json`` of ``HierarchicalTokenPooling``."""

    pool_factor: Count


class AnswersFile(FolderFile):
    """``config.json`` of ``LogitScore``: the entries of two answers of a language model."""

    true_token_id: int = Field(ge=0)
    false_token_id: int | None = Field(default=None, ge=0)


class SpladeFile(FolderFile):
    """``config.json`` of ``SpladePooling``."""

    pooling_strategy: str = "max"
    activation_function: str = "relu"


class AutoEncoderFile(FolderFile):
    """``config.json`` of ``SparseAutoEncoder``."""

    hidden_dim: Count
    k: Count
    normalize: bool = False


class RouterFile(FolderFile):
    """``router_config.json``: which modules each kind of text passes; a module is named after its folder."""

    types: dict[str, str]
    structure: dict[str, list[str]]

    def modules(self, route: str) -> list[tuple[str, str]]:
        """Return type and folder of each module of a route; none if there is no such route."""
        return [(self.types.get(name, ""), name) for name in self.structure.get(route, [])]


class StanfordFile(FolderFile):
    """``artifact.metadata`` of Stanford's ColBERT."""

    query_token_id: str = "[unused0]"
    doc_token_id: str = "[unused1]"
    query_maxlen: Count = 32
    doc_maxlen: Count = 220
    attend_to_mask_tokens: bool = False
    mask_punctuation: bool = True


class IndexFile(FolderFile):
    """``model.safetensors.index.json``: the file of each tensor."""

    weight_map: dict[str, str]


class OwnFile(FolderFile):
    """``embedtrain.json``; the parts that stand beside the contract are read by their own forms."""

    model_config = ConfigDict(extra="allow")

    kind: Literal["dense", "late_interaction", "sparse", "cross_encoder"]
    contract: dict[str, Any]
    __pydantic_extra__: dict[str, Any]

    def part(self, name: str) -> Any:  # noqa: ANN401 - the part's own form knows
        """Return what is said of a part; None if nothing."""
        return self.__pydantic_extra__.get(name)


class VectorAdapterFile(FolderFile):
    """``adapter.json``: how vectors are transformed."""

    kind: Literal["low_rank", "linear", "mlp"]
    activation: Literal["identity", "tanh", "relu"]
    dim: Count


def read_form(path: Path, form: type[Form], *, optional: bool = False) -> Form:
    """Read a JSON file as ``form``; an optional one that is missing reads as an empty object.

    Raises:
        UserError: If it cannot be read, or lacks what is needed, or holds it in another type.
    """
    return checked(path, form, read_json(path, optional=optional))


def checked(place: object, form: type[Form], content: object) -> Form:
    """Return ``content``, which stands at ``place``, as ``form``.

    Raises:
        UserError: With the first key that is wrong.
    """
    try:
        # As JSON, where a list may be a tuple and nothing else stands for another type.
        return form.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(key) for key in first["loc"])
        here = f"{place}: {where}" if where else place
        if first["type"] == "missing":
            raise UserError(here, "is missing", cure=CURE) from error
        message = first["msg"].removeprefix("Value error, ")
        problem = f"is not usable ({message[:1].lower()}{message[1:]})"
        raise UserError(here, problem, got=first["input"], cure=CURE) from error


def inside(folder: Path, path: str, place: object) -> Path:
    """Return the folder ``path`` of a model folder.

    Raises:
        UserError: If it leaves the model folder, by its name or by a symbolic link.
    """
    root = os.path.realpath(folder)
    if "\0" in path or not Path(os.path.realpath(folder / path)).is_relative_to(root):
        raise UserError(place, "names a path outside the model folder", got=path, cure=CURE)
    return folder / path
