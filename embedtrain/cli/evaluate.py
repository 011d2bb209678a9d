"""The command that measures models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
from embedtrain.locks import owns

if TYPE_CHECKING:
    from embedtrain.evaluation.tasks.smaller import Pruning, Sample
    from embedtrain.workflows.evaluate.mteb import MtebWish

EXAMPLES = (
    "embedtrain evaluate runs/quickstart/model --data scifact --output scifact.json",
    "embedtrain evaluate my-model --data scifact --data sts/stsb-en --data banking77.test.jsonl --output scores",
    "torchrun --nproc-per-node 8 -m embedtrain evaluate my-model --data scifact --output scores",
    "embedtrain evaluate my-model --data scifact --rerank my-reranker --top 100 --output two_stages.json",
    "embedtrain evaluate my-model --data scifact --index hnsw:effort=64",
    "embedtrain evaluate my-model --data scifact --index qdrant://localhost:6333/scifact",
    "embedtrain evaluate bm25 --data scifact --output bm25.json",
    "embedtrain evaluate bm25 --data scifact --rerank my-reranker",
    "embedtrain evaluate my-model --data scifact --with bm25 --fuse tuned --output hybrid.json",
    "embedtrain evaluate my-model --data scifact --sample my-model.trec --sample other.trec --output small.json",
    "embedtrain evaluate my-model --data scifact --keep 0.75 --baseline scifact.json",
    "embedtrain evaluate my-model --mteb SciFact --data SciFact=scifact --output mteb",
)


@owns("save_runs")
def evaluate(
    model: ModelArgument,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="A BEIR folder, python_docs, or .jsonl rows of any kind of task; may be repeated. "
            "With --mteb, TASK=PATH replaces the Hub's data of a task."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Which split of the data; test if left out.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="A .json file, or a folder for any number of tasks; what is done is kept."
        ),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Another model's file or folder, for a paired test.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Kind of task, where the data could be of several.")
    ] = None,
    clusters: Annotated[
        str | None,
        typer.Option(help="Column of labels of queries or items that are not independent."),
    ] = None,
    efficiency: Annotated[
        bool, typer.Option(help="Time encoding and search of retrieval as well.")
    ] = True,
    dim: Annotated[
        int | None, typer.Option(min=1, help="Keep the first dimensions of vectors.")
    ] = None,
    quantize: Annotated[
        Literal["int8", "binary", "ternary", "trained"] | None,
        typer.Option(
            help="Store a byte, a bit or one of three levels per number of a document; binary is scored again. trained: "
            "as the model was trained or turned for."
        ),
    ] = None,
    rescore: Annotated[
        int, typer.Option(min=1, help="Candidates per result that binary scores again.")
    ] = 4,
    price: Annotated[
        float | None, typer.Option(min=0, help="Price of an hour of this machine, for the costs.")
    ] = None,
    mteb: Annotated[
        list[str] | None,
        typer.Option(
            help='A benchmark ("MTEB(eng, v2)") or task of mteb, or "local" for only the --data given; '
            "--output is then a folder."
        ),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="With --mteb: JSON of prompts by mteb's names.")
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
    top: Annotated[
        int, typer.Option(min=1, help="With --rerank: results of a query that are ordered anew.")
    ] = 100,
    blend: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="With --rerank: share of its scores; the rest is the first stage's."
        ),
    ] = 1.0,
    with_: WithOption = None,
    fuse: FuseOption = "sum",
    weights: WeightsOption = None,
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="With --with: results of each system that are fused; 1,000."),
    ] = None,
    tune_on: Annotated[
        str | None,
        typer.Option(
            help="With --fuse tuned: split that weights are learned on; else folds of the queries themselves."
        ),
    ] = None,
    forms: Annotated[
        Literal["mean", "fuse", "max"] | None,
        typer.Option(
            help="Ask queries in all forms of query_forms.jsonl: the mean of their vectors, their lists fused, or the "
            "best of their scores."
        ),
    ] = None,
    feedback: FeedbackOption = None,
    units: UnitsOption = False,
    sample: Annotated[
        list[Path] | None,
        typer.Option(
            help="Measure on the judged documents and what this ranking (.trec) found; repeat it for every model that "
            "is compared."
        ),
    ] = None,
    sample_depth: Annotated[
        int, typer.Option(min=1, help="With --sample: documents of a query from each ranking.")
    ] = 250,
    sample_queries: Annotated[
        int, typer.Option(min=1, help="With --sample: queries at most.")
    ] = 1000,
    keep: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Search this share of the corpus, the rest is left out."),
    ] = None,
    quality: Annotated[
        str | None,
        typer.Option(
            help="With --keep: what decides; `learned` from the training split, `random`, `shortest` or `copies` (go "
            "first), or a .npy file of scores."
        ),
    ] = None,
    save_runs: Annotated[
        Path | None, typer.Option(help="With --with: folder for each system's ranking and result.")
    ] = None,
) -> None:
    """Score a model on tasks of any kind, with confidence intervals and cost.

    With --with, several systems search and their results are fused. With --rerank, a second model orders anew what
    was found. MODEL may also be `bm25`, or `run:FILE` with a TREC run, with these or by itself.
    """
    # Longer than others: most of its lines are its options.
    from rich.console import Console

    from embedtrain.contract.long_inputs import parse_long_inputs

    asked = rerank_as or rerank_template or rerank_instruction
    if rerank is None and (asked or top != 100 or blend != 1):
        flags = "--rerank-as, --rerank-template, --rerank-instruction, --top and --blend"
        raise UserError(flags, "say how results are ordered anew", cure="Add --rerank MODEL")
    several = bool(rerank or with_ or forms or feedback or units)
    if index is not None and "://" in index and several:
        flags = "--rerank, --with, --forms, --feedback and --units"
        cure = "Use `embedtrain load`'s model alone, or an index of ours"
        raise UserError("--index", f"names an engine, which {flags} do not search", cure=cure)
    pool = _read_sample(sample, sample_depth, sample_queries, rerank)
    pruning = _read_pruning(keep, quality, several=several)
    longer = parse_long_inputs(long_inputs)
    fusing = read_fusing(with_, fuse, weights, depth, tune_on, save_runs, forms, feedback, units)
    if mteb:
        from embedtrain.workflows.evaluate.mteb import MtebWish

        refused = (
            baseline
            or clusters
            or dim
            or quantize
            or price
            or late_chunks
            or rerank
            or fusing
            or index
            or pool
            or pruning
        )
        mteb_wish = MtebWish(
            mteb, data or [], split, task, prompts, instruction=instruction, long_inputs=longer,
            precision=precision,
        )  # fmt: skip
        _evaluate_mteb(model, mteb_wish, output, refused)
        return
    if prompts is not None:
        raise UserError("--prompts", "is for --mteb only", cure="The contract has the prompts")

    from embedtrain.encoding.shards import current_shard
    from embedtrain.evaluation.results.report import result_tables
    from embedtrain.retrieval.compression import Compression
    from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks

    compression = Compression(dim=dim, quantize=quantize, rescore=rescore)
    wish = Wish(
        data or [], split, task, clusters, baseline, efficiency, compression, price, instruction,
        longer, late_chunks, precision, index,
        pool, pruning,
    )  # fmt: skip
    if rerank is None:
        from embedtrain.workflows.evaluate.first_stage import is_model
        from embedtrain.workflows.evaluate.fused import evaluate_fused
        from embedtrain.workflows.evaluate.systems import Fusing

        if fusing is None and is_model(model):
            results = evaluate_tasks(model, wish, output)
        else:  # BM25 or a ranking by itself is a fusion of one
            results = evaluate_fused(model, wish, fusing or Fusing(), output)
    else:
        from embedtrain.encoding.language.settings import LanguageSettings
        from embedtrain.workflows.evaluate.two_stage import Reranking, evaluate_two_stages

        language = LanguageSettings(template=rerank_template, instruction=rerank_instruction)
        second = Reranking(rerank, rerank_as, top, blend, language=language)
        results = evaluate_two_stages(model, wish, second, output, fusing)
    for result in results if current_shard().is_first else ():
        for table in result_tables(result):
            Console().print(table)


def _read_sample(
    runs: list[Path] | None, depth: int, num_queries: int, rerank: str | None
) -> "Sample | None":
    from embedtrain.evaluation.tasks.smaller import Sample

    if runs and rerank:
        cure = "Leave out --rerank"
        raise UserError("--sample", "is for systems that search a corpus", cure=cure)
    return Sample(tuple(runs), depth, num_queries) if runs else None


def _read_pruning(keep: float | None, quality: str | None, *, several: bool) -> "Pruning | None":
    """Return how much of a corpus is kept; ``several`` says that more than one model works on it."""
    from embedtrain.evaluation.tasks.smaller import LEARNED, Pruning

    if keep is None and quality:
        raise UserError("--quality", "says what is left out", got=quality, cure="Add --keep 0.75")
    if keep is not None and several:
        flags = "--rerank, --with, --forms, --feedback or --units"
        raise UserError("--keep", "is for one model that searches", cure=f"Leave out {flags}")
    return None if keep is None else Pruning(keep, quality or LEARNED)


def _evaluate_mteb(model: str, wish: "MtebWish", output: Path | None, refused: object) -> None:
    from rich.console import Console
    from rich.table import Table

    from embedtrain.files import check_folder
    from embedtrain.workflows.evaluate.mteb import evaluate_mteb

    if refused:
        raise UserError(
            "--mteb",
            "does not go with --baseline, --clusters, --dim, --quantize, --price, --late-chunks, --rerank, "
            "--with, --forms, --feedback, --units, --sample, --keep and --index",
            cure="Use embedtrain compare on the scores/ folders",
        )
    if output is None or output.suffix == ".json":
        raise UserError("--output", "must be a folder with --mteb", got=output and str(output))
    check_folder("--output", output)
    table = Table("task", "subset", "split", "metric", "score")
    for score in evaluate_mteb(model, wish, output):
        table.add_row(score.task, score.subset, score.split, score.metric, f"{score.value:.4f}")
    Console().print(table)
