"""The command that serves models."""

from pathlib import Path
from typing import Annotated

import typer

from embedtrain.cli.options import ModelArgument, PrecisionOption
from embedtrain.errors import UserError
from embedtrain.serving.settings import ServeSettings

EXAMPLES = (
    "embedtrain serve runs/quickstart/model --data python_docs",
    "EMBEDTRAIN_SERVE_TOKEN=... embedtrain serve my-model --host 0.0.0.0 --port 8080 --dimensions 256,64",
    "embedtrain serve my-model --with its-start --with cross-encoder/ms-marco-MiniLM-L6-v2 --data corpus.jsonl",
)
DEFAULTS = ServeSettings()


def serve(
    model: ModelArgument,
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with", help="Another model, of any kind, cross-encoders too; may be repeated."
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="What requests call MODEL, then each other model; else as its folder."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8000,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name by which a proxy on this machine calls the server; may be repeated."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Documents that the page searches: a BEIR folder, python_docs, or a file as for search; left out, "
            "visitors type them."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the data, where there are splits.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="Holds the bearer token that requests must carry; else EMBEDTRAIN_SERVE_TOKEN does."
        ),
    ] = None,
    no_token: Annotated[bool, typer.Option(help="Let other machines ask without a token.")] = False,
    open_metrics: Annotated[bool, typer.Option(help="/metrics asks for no token.")] = False,
    page: Annotated[bool, typer.Option(help="Whether there is a page at /.")] = True,
    check: Annotated[
        bool, typer.Option(help="Load all, let each model compute once, and end.")
    ] = False,
    dimensions: Annotated[
        str | None,
        typer.Option(metavar="N,N,...|any", help="Sizes to which requests may have vectors cut."),
    ] = None,
    precision: PrecisionOption = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="That compute; left out, all cores but one.")
    ] = None,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Computed at once.")
    ] = DEFAULTS.batch_tokens,
    wait_ms: Annotated[
        float, typer.Option(min=0, max=1000, help="An idle model waits so long for company.")
    ] = 1000 * DEFAULTS.wait_seconds,
    queue_tokens: Annotated[
        int, typer.Option(min=1, help="That wait; what comes above is answered 429.")
    ] = DEFAULTS.queue_tokens,
    max_texts: Annotated[int, typer.Option(min=1, help="Of a request.")] = DEFAULTS.max_texts,
    max_body: Annotated[
        int, typer.Option(min=1, help="Bytes of a request.")
    ] = DEFAULTS.max_body_bytes,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds for a whole request.")
    ] = DEFAULTS.request_seconds,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds for requests under way when it is told to stop.")
    ] = DEFAULTS.grace_seconds,
) -> None:
    """Answer requests for vectors and scores (OpenAI's and TEI's routes), with a page to compare two ways to search."""
    # Longer than others: most of its lines are its options.
    from embedtrain.workflows.serve import Serving
    from embedtrain.workflows.serve import serve as run_serve

    settings = DEFAULTS.model_copy(
        update={
            "dimensions": _read_dimensions(dimensions), "batch_tokens": batch_tokens,
            "wait_seconds": wait_ms / 1000, "queue_tokens": queue_tokens, "max_texts": max_texts,
            "max_body_bytes": max_body, "request_seconds": timeout, "grace_seconds": grace,
        }
    )  # fmt: skip
    wish = Serving(
        [model, *(with_ or ())], tuple(name or ()), host, port, tuple(allow_host or ()), data, split,
        token_file=token_file, no_token=no_token, open_metrics=open_metrics, page=page, check=check,
        precision=precision, threads=threads, settings=settings,
    )  # fmt: skip
    run_serve(wish, typer.echo)


def _read_dimensions(words: str | None) -> "tuple[int, ...] | str":
    if words is None or words == "any":
        return words or ()
    sizes = [int(one) if one.isascii() and one.isdigit() else 0 for one in words.split(",")]
    if not all(sizes):
        raise UserError("--dimensions", "are not numbers", got=words, cure="Write 256,64 or any")
    return tuple(sizes)
