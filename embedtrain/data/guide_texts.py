"""Which text a guide reads in the place of a row's own: ``guide_text`` of a source's columns.

A student can so learn the vector that another text has: a translation that of its source, a question within a
conversation that of the question written out, a chunk within its document that of the chunk alone.
"""

from embedtrain.contract.spans import alone
from embedtrain.data.examples import SOURCE, SPAN, Example
from embedtrain.errors import UserError
from embedtrain.types import Side


def guide_texts(example: Example, rule: str | None) -> tuple[str, list[tuple[Side, str]]]:
    """Return what a guide reads for the query, and for each document with the side that it reads it as.

    Raises:
        UserError: If the rule is a column and the row has none.
    """
    documents = example.positives + example.negatives
    if rule == SPAN:
        return alone(example.query), [("document", alone(text)) for text in documents]
    if rule == SOURCE:
        return example.query, [("query", example.query)] * len(documents)
    asked = example.query if rule is None else example.guide_query
    if not asked:
        cure = "Name one of its columns, span or source"
        raise UserError("columns.guide_text", "is no column of this source", got=rule, cure=cure)
    return asked, [("document", text) for text in documents]
