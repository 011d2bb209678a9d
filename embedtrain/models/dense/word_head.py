"""The masked-language head behind the vectors of definitions, which shall name the word that they define."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.code_types import WordPrediction
from embedtrain.models.backbone.language_head import MaskedLanguageModel
from embedtrain.ops.linear_cross_entropy import UNLABELLED
from embedtrain.packed import Texts
from embedtrain.types import RetrievalBatch


class WordHead(nn.Module):
    """Scores every entry of the vocabulary for a vector; it is not trained, and exports leave it out.

    ``language`` shares the encoder's weights: where the output matrix is the input's, it moves with that.
    """

    def __init__(self, language: MaskedLanguageModel) -> None:
        super().__init__()
        self.language = language
        inside = {id(parameter) for parameter in language.backbone.model.parameters()}
        for parameter in language.parameters():
            if id(parameter) not in inside:
                parameter.requires_grad_(False)

    def forward(
        self, vectors: Float[Tensor, "texts width"], batch: RetrievalBatch
    ) -> WordPrediction:
        """Return what the cross-entropy of words is made of; no gradient reaches the output matrix.

        ``vectors`` are those of the batch's distinct queries; the words are their first positives.
        """
        firsts = batch.document_rows[batch.relevance.positives[:, 0]]
        words = self.words_of(batch.documents)[firsts]
        hidden = self.language.transform(vectors[batch.query_rows].to(self.language.weight.dtype))
        bias = self.language.bias
        return WordPrediction(
            hidden, self.language.weight.detach(), None if bias is None else bias.detach(), words
        )

    def words_of(self, texts: Texts) -> Int64[Tensor, " texts"]:
        """Return the only token of each text beside special ones; -100 where there are more or none."""
        special = torch.tensor(self.language.tokenizer.all_special_ids, device=texts.ids.device)
        inside = ~torch.isin(texts.ids, special)
        owner = torch.arange(len(texts), device=texts.ids.device)
        owner = owner.repeat_interleave(texts.lengths)[inside]
        counts = torch.bincount(owner, minlength=len(texts))
        words = torch.zeros_like(counts).index_add(0, owner, texts.ids[inside])
        return words.masked_fill(counts != 1, UNLABELLED)
