"""A page for people: what was kept out as a suspected false negative, beside the query and its positive."""

from collections.abc import Sequence

from embedtrain.errors import one_line
from embedtrain.mining.miner import MinedQuery
from embedtrain.mining.task import MiningTask

SHOWN_LENGTH = 300
"""Characters of a text that are shown."""


def render_suspects(queries: Sequence[MinedQuery], task: MiningTask) -> str:
    """Return the page as Markdown, the most suspicious first."""
    lines = [
        f"# Suspected false negatives of {task.name}",
        "",
        "Documents that were kept out because they score too close to a positive. Where they do not answer",
        "the query, the rule is too strict; where kept negatives answer it, it is too loose.",
        "",
    ]

    def text(document_id: str) -> str:
        return _short(task.chunks[task.row_of_document[document_id]])

    for query in sorted(queries, key=_suspicion, reverse=True):
        positive = min(query["pos"], key=lambda document: document["score"])
        lines += [
            f"## {_short(task.queries[task.row_of_query[query['qid']]])}",
            "",
            f"Query `{_id(query['qid'])}`, positive `{_id(positive['id'])}`, score {positive['score']:.4f}:",
            "",
            f"> {text(positive['id'])}",
            "",
        ]
        for suspect in query["suspects"]:
            lines += [
                f"Kept out by {suspect['reason']}: `{_id(suspect['id'])}`, score {suspect['score']:.4f}:",
                "",
                f"> {text(suspect['id'])}",
                "",
            ]
    return "\n".join(lines) + "\n"


def _suspicion(query: MinedQuery) -> tuple[float, str]:
    lowest = min(positive["score"] for positive in query["pos"])
    return max(suspect["score"] for suspect in query["suspects"]) - lowest, query["qid"]


def _id(name: str) -> str:
    """Return an id that stays inside its backticks and its line."""
    return _short(one_line(name).replace("`", "'"))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_LENGTH else line[: SHOWN_LENGTH - 3] + "..."
