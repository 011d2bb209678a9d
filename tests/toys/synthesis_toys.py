"""Rows of candidates to filter."""

from embedtrain.data.documents.document import Chunk
from embedtrain.synthesis.candidate import Candidate
from embedtrain.synthesis.row import Row


def chunk(text, name="d", document=None, title="", heading=""):
    return Chunk(name, document or name.split("#")[0], title, heading, text, 0, len(text))


def row(query, text="A text about nothing.", name="d", maker="model", **facts):
    """Return a row; ``maker`` is a rule's name, or a language model's."""
    own = chunk(text, name)
    facts = {"positive": text, "type": "question"} | facts
    return Row(Candidate(query, chunk=own.id, document=own.document, maker=maker, **facts), own)
