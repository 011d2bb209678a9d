"""The command that encodes texts."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from embedtrain.cli.options import (
    LateChunksOption,
    LongInputsOption,
    ModelArgument,
    PrecisionOption,
)
from embedtrain.errors import UserError

EXAMPLES = (
    "embedtrain encode runs/quickstart/model corpus.jsonl --output vectors.npy",
    "torchrun --nproc-per-node 8 -m embedtrain encode runs/quickstart/model corpus/ --output vectors/",
)


def encode(
    model: ModelArgument,
    texts: Annotated[
        Path,
        typer.Argument(
            help=".jsonl(.gz) or .parquet with a text column, a text per line, or a folder of such files."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="A .npy file to write, float32, rows as in the input (of a sparse model .npz or .safetensors); or a "
            "folder of shards, which several processes write together and a killed run goes on with."
        ),
    ],
    side: Annotated[
        Literal["query", "document"], typer.Option(help="Whose prompt and length to use.")
    ] = "document",
    column: Annotated[str | None, typer.Option(help="Name of the text column.")] = None,
    instruction: Annotated[
        str | None, typer.Option(help="Encode with one of the model's named instructions.")
    ] = None,
    form: Annotated[
        Literal["npy", "parquet"], typer.Option("--format", help="Of the shards in a folder.")
    ] = "npy",
    rows_per_shard: Annotated[int, typer.Option(min=1, help="Texts of a shard.")] = 16_384,
    long_inputs: LongInputsOption = None,
    late_chunks: LateChunksOption = None,
    precision: PrecisionOption = "auto",
    quantize: Annotated[
        Literal["int8", "binary", "ternary", "trained"] | None,
        typer.Option(
            help="In one file: a byte (c / 127), a bit or one of three levels per number; trained: as the model was "
            "trained for. Of a sparse model int8, a byte per weight."
        ),
    ] = None,
    spans: Annotated[
        bool, typer.Option(help="A vector for each of a row's spans, [[start, end], ...].")
    ] = False,
) -> None:
    """Encode texts, from one file or a folder, into one file or a folder."""
    if spans:
        if form != "npy" or output.suffix != ".npy" or texts.is_dir() or long_inputs or late_chunks:
            raise UserError(
                "--spans",
                "goes from one file to one .npy file, without --format, --long-inputs and --late-chunks",
                got=str(output),
                cure="Leave the others out",
            )
        _encode_spans(model, texts, output, side, column, instruction, precision)
        return
    from embedtrain.contract.long_inputs import parse_long_inputs
    from embedtrain.workflows.encode.file import FILES

    longer = parse_long_inputs(long_inputs)
    if late_chunks and (side == "query" or output.suffix != ".npy"):
        raise UserError(
            "--late-chunks", "is for documents that go into one .npy file", got=str(output),
            cure="Leave out --side query, and let --output end in .npy",
        )  # fmt: skip
    if output.suffix not in ("", *FILES) and not output.is_dir():
        raise UserError(
            "--output",
            f"must end in {', '.join(FILES)}, or have no ending where it is to be a folder of shards",
            got=str(output),
            cure="Rename it",
        )
    if output.suffix not in FILES:
        if quantize is not None:
            raise UserError("--quantize", "is for one file", cure="Name a file as --output")
        from embedtrain.workflows.encode.shards import encode_shards, report

        done = encode_shards(
            model, texts, output, side=side, column=column, instruction=instruction, form=form,
            rows_per_shard=rows_per_shard, long_inputs=longer, precision=precision,
        )  # fmt: skip
        report(done, output)
        return
    from embedtrain.encoding.shards import current_shard
    from embedtrain.workflows.encode.file import encode as run_encode

    if current_shard().ranks > 1 or texts.is_dir():
        raise UserError(
            "--output",
            "is one file, which several processes or files cannot fill",
            got=str(output),
            cure="Name a folder",
        )
    if form != "npy":
        raise UserError("--format", "is of shards", got=form, cure="Name a folder as --output")
    rows, dim = run_encode(
        model, texts, output, side=side, column=column, instruction=instruction, long_inputs=longer,
        late_chunks=late_chunks, precision=precision, quantize=quantize,
    )  # fmt: skip
    typer.echo(f"{output}: {rows:,} x {dim}")


def _encode_spans(
    model: str,
    texts: Path,
    output: Path,
    side: Literal["query", "document"],
    column: str | None,
    instruction: str | None,
    precision: PrecisionOption,
) -> None:
    from embedtrain.encoding.shards import current_shard
    from embedtrain.workflows.encode.spans import encode_spans

    if current_shard().ranks > 1:
        raise UserError("--spans", "runs in one process", cure="Start it without torchrun")
    rows, dim = encode_spans(
        model, texts, output, side=side, column=column, instruction=instruction, precision=precision
    )
    typer.echo(f"{output}: {rows:,} spans x {dim}")
