"""A backbone without layers: the state of a token is its row of a table, whatever stands beside it."""

from pathlib import Path

from jaxtyping import Float, Int64
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from embedtrain.errors import UserError
from embedtrain.models.backbone.fetching import fetch, static_folder
from embedtrain.models.backbone.files import read_weights, write_weights
from embedtrain.models.backbone.fit import WEIGHTS
from embedtrain.models.backbone.loading import Backbone
from embedtrain.models.backbone.pretrained import FOREIGN, PROBE
from embedtrain.outside import reading


class WordTable(nn.Module):
    """Rows of words, in the place of a transformer.

    Args:
        rows: A row per entry of the tokenizer.
        unknown: The entry of words that the table lacks. Where its row is 0 such words add nothing, and
            training keeps it so.
    """

    def __init__(self, rows: Float[Tensor, "words dim"], unknown: int | None = None) -> None:
        super().__init__()
        silent = unknown is not None and not rows[unknown].any()
        words, dim = rows.shape
        self.rows = nn.Embedding(words, dim, padding_idx=unknown if silent else None)
        self.rows.weight = nn.Parameter(rows.float())
        self.config = PretrainedConfig(vocab_size=words, hidden_size=dim, num_hidden_layers=0)

    def forward(self, ids: Int64[Tensor, " tokens"]) -> Float[Tensor, "tokens dim"]:
        """Return the row of each token."""
        states: Tensor = self.rows(ids)
        return states

    def first_columns(self, dim: int) -> "WordTable":
        """Return the table of the first dimensions."""
        rows = self.rows.weight.detach()[:, :dim].clone()
        shorter = WordTable(rows, None)
        shorter.rows.padding_idx = self.rows.padding_idx
        return shorter


def table_backbone(
    rows: Float[Tensor, "words dim"], tokenizer: Tokenizer, path: str, folder: Path
) -> Backbone:
    """Return a table and its tokenizer in the form that encoders are built around.

    The tokenizer adds no special tokens, as in sentence-transformers' ``StaticEmbedding``.
    """
    tokenizer.post_processor = None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    name = getattr(tokenizer.model, "unk_token", None)
    unknown = tokenizer.token_to_id(name) if isinstance(name, str) else None
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    return Backbone(WordTable(rows, unknown), wrapped, path, folder)


def load_table(path: str) -> Backbone:
    """Read the table of a ``StaticEmbedding`` folder, one of model2vec's included.

    Raises:
        UserError: If the weights or the tokenizer are missing, or do not fit together.
    """
    folder = fetch(path)
    place = static_folder(folder)
    assert place is not None
    for name in (WEIGHTS, "tokenizer.json"):
        if not (place / name).is_file():
            raise UserError(place, f"has no {name}", cure="Copy the whole model folder")
    rows = _read_rows(place / WEIGHTS)
    with reading(place / "tokenizer.json"):
        tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
        tokenizer.encode(PROBE)
    entries = max(tokenizer.get_vocab().values(), default=-1) + 1
    if len(rows) < entries:
        raise UserError(
            place,
            f"has {len(rows)} rows for {entries} entries of its tokenizer",
            cure="Take both from one place",
        )
    return table_backbone(rows, tokenizer, path, folder)


def _read_rows(path: Path) -> Tensor:
    weights = read_weights(path, whole=("mapping",))
    rows = weights.get("embedding.weight", weights.get("embeddings"))
    if rows is None or rows.dim() != 2:
        raise UserError(path, "holds no table of words", got=sorted(weights))
    with reading(path, also=FOREIGN):
        if "mapping" in weights:
            rows = rows[weights["mapping"].long()]
        if "weights" in weights:
            rows = rows.float() * weights["weights"].float()[:, None]
    return rows


def save_table(table: WordTable, tokenizer: Tokenizer, place: Path) -> None:
    """Write the table and its tokenizer as ``StaticEmbedding`` reads them."""
    write_weights(place / WEIGHTS, {"embedding.weight": table.rows.weight.cpu()})
    tokenizer.save(str(place / "tokenizer.json"))
