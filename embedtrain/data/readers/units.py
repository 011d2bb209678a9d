"""Units of documents, such as propositions or chunks: ``units.jsonl`` beside ``corpus.jsonl``.

A row is ``{"_id": "d1-0", "document": "d1", "text": "..."}``; with ``"span": [start, end]`` the unit is that part of it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from embedtrain.contract.spans import mark
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.errors import UserError

FILE = "units.jsonl"


@dataclass(frozen=True)
class Units:
    """Texts that stand for documents, and the row of the document that each is of."""

    ids: list[str]
    texts: list[str]
    owner: Int64[np.ndarray, " units"]


def read_units(folder: Path, document_ids: list[str]) -> Units:
    """Read the units of a corpus; a document may have none, and is never found then.

    Raises:
        UserError: If the folder has none, or a row cannot be used.
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError("--units", f"needs a {FILE} beside the corpus", got=str(folder))
    row_of = {name: row for row, name in enumerate(document_ids)}
    ids: dict[str, None] = {}
    texts, owners = [], []
    for place, row in read_objects(path):
        name, text, document = str(row.get("_id")), row.get("text"), str(row.get("document"))
        if not isinstance(text, str) or not text.strip():
            raise UserError(place, "has no text", got=text, cure="Remove the unit")
        if document not in row_of:
            cure = "Add a column document with an id of corpus.jsonl"
            raise UserError(place, "is a unit of no document", got=row.get("document"), cure=cure)
        if row.get("_id") is None or name in ids:
            raise UserError(place, "has no _id of its own", got=row.get("_id"))
        ids[name] = None
        texts.append(text if row.get("span") is None else mark(text, row["span"], f"{place} span"))
        owners.append(row_of[document])
    if not ids:
        raise UserError(path, "holds no unit", cure="Leave out --units")
    return Units(list(ids), texts, np.array(owners, dtype=np.int64))
