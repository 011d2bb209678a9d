"""Instructions of single queries: does a model find more when each query says what is wanted?

Source: Sun et al. (2024), https://arxiv.org/abs/2410.10127 (MAIR), whose 126 tasks have an instruction for each query.
Their data are not here: a folder holds one task, and tasks are averaged by whoever has several.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from embedtrain.contract.texts import Instruction, Template
from embedtrain.data.readers.beir import RetrievalTask, load_retrieval_task
from embedtrain.data.readers.text_lines import read_objects
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.metrics import score_run
from embedtrain.evaluation.measures.statistics import compare_paired
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.tasks.retrieval import as_run
from embedtrain.evaluation.tasks.subject import Subject, with_prompts
from embedtrain.retrieval.dense.exact import SearchResult

METRIC = "ndcg_at_10"


class QueryInstructions(Probe):
    """Search without and with the instruction of each query, and compare nDCG@10 query by query.

    A row of ``queries.jsonl`` may have a column ``instruction``; it takes the place of the model's own prompt, in the
    form of ``template``. Queries without one are searched once. ``cut`` is the share of instructions that alone fill
    what the model reads of a query.
    """

    name: ClassVar[str] = "query-instructions"
    needs_data: ClassVar[str] = "a BEIR folder whose queries.jsonl has a column instruction"

    @classmethod
    def run(cls, subject: Subject, wish: ProbeWish) -> list[Finding]:
        """Search in both ways."""
        assert wish.data is not None
        task = load_retrieval_task(wish.data)
        instructions = read_instructions(wish, task)
        separator = subject.model.tokenizer.sep_token or ""
        prompts = [
            None if text is None else _prompt(text, wish.template, separator)
            for text in instructions
        ]
        plain = _scores(
            task, task.query_ids, subject.search(task.queries, task.documents, 10, "query")
        )
        asked = plain.copy()
        rows = [row for row, prompt in enumerate(prompts) if prompt is not None]
        found = _search_with(subject, task, [f"{prompts[row]}{task.queries[row]}" for row in rows])
        asked[rows] = _scores(task, [task.query_ids[row] for row in rows], found)
        change = compare_paired(asked, plain, seed=wish.seed)
        setting = f"{len(task.queries):,} queries, {len(rows):,} with an instruction"
        figures = {
            f"{METRIC} without": float(plain.mean()),
            f"{METRIC} with": float(asked.mean()),
            "difference": change.difference,
            "low": change.low,
            "high": change.high,
            "p": change.p_value,
            "share that loses": float((asked < plain).mean()),
            "share that gains": float((asked > plain).mean()),
            "cut": _share_cut(subject, [prompts[row] or "" for row in rows]),
        }
        return [Finding(setting, name, value) for name, value in figures.items()]


def read_instructions(wish: ProbeWish, task: RetrievalTask) -> list[str | None]:
    """Return the instruction of each query; None where it has none.

    Raises:
        UserError: If no query has one, or one is no text.
    """
    assert wish.data is not None
    path = wish.data / "queries.jsonl"
    found: dict[str, str] = {}
    for place, row in read_objects(path):
        text = row.get("instruction")
        if text is not None and not isinstance(text, str):
            raise UserError(
                f"{place} instruction", "is no text", got=text, cure="Write one, or leave it out"
            )
        if text and text.strip():
            found[str(row.get("_id"))] = text
    instructions = [found.get(query) for query in task.query_ids]
    if not any(instructions):
        raise UserError(
            path, "has no judged query with an instruction", cure="Add a column instruction"
        )
    return instructions


def _prompt(text: str, template: Template, separator: str) -> str:
    head = Instruction(text=text, template=template).query_prompt(separator)
    return f"{head} " if template == "plain" else head


def _search_with(subject: Subject, task: RetrievalTask, texts: Sequence[str]) -> SearchResult:
    """Search with queries that stand as they are, for the model's own prompt would stand before them."""
    model = with_prompts(subject.model, "", subject.model.contract.prompt("document"))
    view = Subject(model, subject.name, subject.cache, precision=subject.precision)
    return subject.find(view.encode(texts, "query"), task.documents, 10)


def _scores(
    task: RetrievalTask, query_ids: Sequence[str], found: SearchResult
) -> Float64[np.ndarray, " queries"]:
    run = as_run(list(query_ids), task.document_ids, found)
    qrels = {query: task.qrels[query] for query in query_ids}
    values = score_run(qrels, run, [METRIC])[METRIC]
    return np.array([values[query] for query in query_ids])


def _share_cut(subject: Subject, prompts: Sequence[str]) -> float:
    """Return the share of instructions that leave no room for a query."""
    room = subject.model.contract.length("query")
    numbers = [len(subject.model.tokenizer(prompt)["input_ids"]) for prompt in prompts]
    return sum(number >= room for number in numbers) / len(numbers)
