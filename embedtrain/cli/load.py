"""The command that loads documents into a database."""

from typing import Annotated, Literal

import typer

from embedtrain.cli.options import ModelArgument, PrecisionOption

EXAMPLES = (
    "embedtrain load runs/my/model corpus.jsonl --into qdrant://localhost:6333/docs",
    "embedtrain load my-model scifact --into lancedb://./store/scifact --with my-late-model",
    "embedtrain load my-model scifact --into 'postgresql://me@localhost/search?table=docs&index=hnsw' --store float16",
    'embedtrain search my-model "what I look for" --index lancedb://./store/scifact',
)


def load(
    model: ModelArgument,
    corpus: Annotated[
        str,
        typer.Argument(
            help="A BEIR folder, python_docs, or a .jsonl, .parquet or text file of documents."
        ),
    ],
    into: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="ENGINE://PLACE/COLLECTION. Engines: qdrant, lancedb, postgresql, milvus; files for elasticsearch, "
            "opensearch and vespa; faiss and jsonl.",
        ),
    ],
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", help="Another model, whose vectors lie beside; may be repeated."),
    ] = None,
    store: Annotated[
        Literal["float32", "float16", "int8", "binary"],
        typer.Option(help="How the engine keeps the numbers, where it knows how."),
    ] = "float32",
    column: Annotated[str | None, typer.Option(help="Name of the text column.")] = None,
    text: Annotated[
        bool, typer.Option("--text/--no-text", help="Keep texts beside their vectors.")
    ] = True,
    prune: Annotated[
        bool, typer.Option(help="Remove documents that are not in the corpus.")
    ] = False,
    queries: Annotated[
        int,
        typer.Option(
            "--verify", min=0, help="Queries searched in the engine and here, to compare."
        ),
    ] = 50,
    precision: PrecisionOption = "auto",
) -> None:
    """Load documents and their vectors into a database, and see that it finds what the model finds."""
    # Longer than others: most of its lines are its options.
    from embedtrain.cli.printing import print_loaded
    from embedtrain.workflows.load.load import Wish
    from embedtrain.workflows.load.load import load as run_load

    wish = Wish(store, column, text, prune, queries, precision)
    print_loaded(
        run_load([model, *(with_ or [])], corpus, into, wish), [model, *(with_ or [])], into
    )
