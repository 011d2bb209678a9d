"""A question within a conversation: the turns before it, and then the question itself."""

from embedtrain.contract.spans import mark
from embedtrain.errors import UserError

ASKING = "user"
"""The role of who asks, and of a turn that names none."""


def with_history(query: str, history: object, place: str, *, marks: bool = False) -> str:
    """Return a conversation as one text: a line "role: text" for each turn, the query last.

    Args:
        query: What is asked now; it comes last, so that a cut of the start leaves it whole.
        history: A list of texts, or of ``{"role": ..., "text": ...}``, oldest first; empty, or None, at the first turn.
        place: Where it stands, for the error.
        marks: Make the query the span of the text.

    Raises:
        UserError: If it is no such list.
    """
    if history is not None and not isinstance(history, list | tuple):
        raise UserError(place, "must be a list of turns", got=history)
    turns = [_turn(turn, place) for turn in history or ()]
    whole = "\n".join([*turns, f"{ASKING}: {query}"])
    return mark(whole, [len(whole) - len(query), len(whole)], place) if marks else whole


def _turn(turn: object, place: str) -> str:
    role, text = (
        (turn.get("role", ASKING), turn.get("text")) if isinstance(turn, dict) else (ASKING, turn)
    )
    if not isinstance(text, str) or not isinstance(role, str) or not text.strip():
        cure = 'Write a text, or {"role": "assistant", "text": "..."}'
        raise UserError(place, "holds no turn", got=turn, cure=cure)
    return f"{role}: {text.strip()}"
