"""What the entries of sparse vectors are called."""

from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.sparse.token_weights import TokenWeights
from embedtrain.models.sparse.vocabulary_head import VocabularyHead


def column_names(model: SparseEncoder) -> list[str]:
    """Return the token of each entry as the tokenizer spells it; entries that are no token have their number."""
    tokens: dict[int, str] = {}
    if isinstance(model.head, VocabularyHead | TokenWeights):
        tokens = {number: token for token, number in model.tokenizer.get_vocab().items()}
    return [tokens.get(column, str(column)) for column in range(model.dim)]
