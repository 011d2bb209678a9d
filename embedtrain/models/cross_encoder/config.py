"""The section ``model:`` of a recipe, for models that read a query and a document together."""

from typing import Literal

from embedtrain.models.backbone.loading import BackboneConfig
from embedtrain.section import Count


class CrossEncoderConfig(BackboneConfig):
    """A reranker. Null takes what the backbone's folder says, then the defaults."""

    kind: Literal["cross_encoder"]
    backbone: str
    """Hub id, local folder (transformers or sentence-transformers), or ``package:NAME/FOLDER``; a backbone without a
    head for classes gets a new one."""
    query_length: Count | None = None
    """Tokens of a query; its end is cut. Null: as the folder says, else 64."""
    length: Count | None = None
    """Tokens of a pair, with all that stands around both texts; the document's end is cut. Null: as the folder says,
    else 512."""
    template: str | None = None
    """What stands around both texts, such as ``"query: {query} document: {document}</s>"``; null: as the folder says,
    else what the tokenizer puts there."""
    trust_remote_code: bool = False
    """Run modelling code from the model's repository. Only for repositories you trust."""
