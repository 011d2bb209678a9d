"""The command that searches documents."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedtrain.cli.options import (
    FeedbackOption,
    FuseOption,
    IndexOption,
    InstructionOption,
    LateChunksOption,
    LongInputsOption,
    ModelArgument,
    PrecisionOption,
    RerankAsOption,
    RerankInstructionOption,
    RerankOption,
    RerankTemplateOption,
    UnitsOption,
    WeightsOption,
    WithOption,
    read_fusing,
)
from embedtrain.errors import UserError
from embedtrain.redaction import redact

if TYPE_CHECKING:  # torch takes seconds to import
    from embedtrain.encoding.pair_scorers import PairScorer
    from embedtrain.precision import Precision
    from embedtrain.workflows.load.search import EngineSearcher

EXAMPLES = (
    'embedtrain search runs/quickstart/model "split a list into chunks of equal size"',
    'embedtrain search runs/my/model "what I look for" --data documents.jsonl --top 10',
    'embedtrain search runs/my/model "what I look for" --rerank my-reranker --depth 50',
    'embedtrain search runs/my/model "what I look for" --with bm25 --weights 1,0.5',
    'embedtrain search runs/my/model "what I look for" --index qdrant://localhost:6333/docs',
    'embedtrain search runs/my/model "what I look for" --threshold 0.42',
)


def search(
    model: ModelArgument,
    query: Annotated[str | None, typer.Argument(help="Left out: asks for queries.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="BEIR folder, .jsonl of documents, or python_docs; default: what the run measured."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the data.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Results to show.")] = 5,
    like: Annotated[
        list[Path] | None,
        typer.Option(help="File of texts that results should be like, instead of a query."),
    ] = None,
    unlike: Annotated[
        list[Path] | None, typer.Option(help="File of texts that they should be unlike.")
    ] = None,
    instruction: InstructionOption = None,
    long_inputs: LongInputsOption = None,
    late_chunks: LateChunksOption = None,
    precision: PrecisionOption = "auto",
    index: IndexOption = None,
    rerank: RerankOption = None,
    rerank_as: RerankAsOption = None,
    rerank_template: RerankTemplateOption = None,
    rerank_instruction: RerankInstructionOption = None,
    depth: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --rerank: results that are ordered anew; 50. With --with: those of each system that are fused; "
            "100.",
        ),
    ] = None,
    with_: WithOption = None,
    fuse: FuseOption = "sum",
    weights: WeightsOption = None,
    feedback: FeedbackOption = None,
    units: UnitsOption = False,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Show only results that score as much: a number, or `stored` for what `embedtrain probe MODEL "
            "thresholds --store` found."
        ),
    ] = None,
) -> None:
    """Search documents, once or interactively; MODEL may also be `bm25`."""
    # Longer than others: most of its lines are its options.
    if query is not None and (like or unlike):
        raise UserError("--like", "takes the place of a query", cure="Give one of them")
    if index is not None and (like or unlike):
        raise UserError("--index", "finds results of a query, not those of --like")
    from embedtrain.cli.printing import print_hits
    from embedtrain.contract.long_inputs import parse_long_inputs
    from embedtrain.workflows.evaluate.threshold import read_cut
    from embedtrain.workflows.search import Searcher

    longer = parse_long_inputs(long_inputs)
    second = None
    asked = rerank_as or rerank_template or rerank_instruction
    own = depth if with_ else None
    fusing = read_fusing(with_, fuse, weights, own, feedback=feedback, units=units)
    if rerank is None and (asked or (depth and not with_)):
        flags = "--rerank-as, --rerank-template, --rerank-instruction and --depth"
        raise UserError(flags, "say how results are ordered anew", cure="Add --rerank MODEL")
    if rerank is not None:
        if like or unlike:
            raise UserError("--rerank", "orders the results of a query, not those of --like")
        from embedtrain.encoding.language.settings import LanguageSettings
        from embedtrain.encoding.pair_scorers import open_pair_scorer

        language = LanguageSettings(template=rerank_template, instruction=rerank_instruction)
        second = open_pair_scorer(rerank, kind=rerank_as, precision=precision, language=language)
    if fusing is not None and (like or unlike):
        raise UserError("--with, --feedback and --units", "are for a query, not for --like")
    if threshold and (like or unlike or fusing or second or (index and "://" in index)):
        flags = "--like, --with, --feedback, --units, --rerank and engines give other ones"
        raise UserError(
            "--threshold", "is for the model's own scores", cure=f"Leave one out: {flags}"
        )
    if index is not None and "://" in index:
        settled = (data, split, longer, late_chunks)
        with _engine(
            model, index, instruction, precision, second, depth, fusing, settled
        ) as engine:
            _answer(query, engine.num_documents, lambda line: print_hits(engine.search(line, top)))
        return
    searcher = Searcher(
        model, data, split, instruction, longer, late_chunks, precision, second, depth, index, fusing,
    )  # fmt: skip
    if like or unlike:
        print_hits(searcher.search_sets(like or [], unlike or [], top))
        return
    cut = None if threshold is None else read_cut(threshold, model, searcher.first.model)
    _answer(query, len(searcher.texts), lambda line: print_hits(searcher.search(line, top), cut))


def _engine(
    model: str,
    url: str,
    instruction: str | None,
    precision: "Precision",
    second: "PairScorer | None",
    depth: int | None,
    fusing: object,
    settled: Sequence[object],
) -> "EngineSearcher":
    """Open a collection of an engine."""
    if any(settled):
        flags = "--data, --split, --long-inputs and --late-chunks"
        raise UserError(flags, "are settled where an engine searches", cure="Leave them out")
    if fusing is not None:
        flags = "--with, --feedback and --units"
        raise UserError(flags, "are not for an engine", got=redact(url), cure="Give --data")
    from embedtrain.workflows.load.search import EngineSearcher
    from embedtrain.workflows.search import RERANKED

    return EngineSearcher(model, url, instruction, precision, second, depth or RERANKED)


def _answer(query: str | None, num_documents: int, show: Callable[[str], None]) -> None:
    """Answer the query, or those that are typed."""
    if query is not None:
        show(query)
        return
    typer.echo(f"{num_documents:,} documents. Empty line ends.", err=True)
    while (line := _ask()).strip():
        show(line)


def _ask() -> str:
    try:
        return input("query> ")
    except EOFError:
        return ""
