"""The command that writes a model folder and, where asked for, uploads it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedtrain.cli.export_formats import Formats, Gguf
from embedtrain.cli.options import LongInputsOption
from embedtrain.errors import UserError
from embedtrain.locks import owns

if TYPE_CHECKING:
    from embedtrain.release.hub import Upload

EXAMPLES = (
    "embedtrain export runs/quickstart --output my-model",
    "embedtrain export runs/quickstart --output my-model --push org/my-model",
    "embedtrain export runs/quickstart --output my-model --gguf f16 --overwrite",
    "embedtrain export runs/quickstart --output my-model --openvino --int8 --calibrate texts.jsonl --overwrite",
    "embedtrain export llm/prompt_eol model.backbone=Qwen/Qwen3-0.6B-Base --output prompted",
)


@owns("output")
def export(
    source: Annotated[
        str,
        typer.Argument(
            help="A run folder, a model folder, a Hub id, or a recipe: its model, untrained."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    overwrite: Annotated[bool, typer.Option(help="Replace the folder if it exists.")] = False,
    layer: Annotated[int | None, typer.Option(help="End the model at this layer, from 1.")] = None,
    dim: Annotated[int | None, typer.Option(help="Keep the first dimensions only.")] = None,
    instruction: Annotated[
        str | None, typer.Option(help="Make the prompts of this instruction the usual ones.")
    ] = None,
    long_inputs: LongInputsOption = None,
    sparse: Annotated[
        bool,
        typer.Option(
            help="Take a masked-language model as a sparse one: SPLADE saved without modules."
        ),
    ] = False,
    probabilities: Annotated[
        Path | None,
        typer.Option(
            help="Of a reranker: its result of evaluate --rerank. The sigmoid of a score is a probability then."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Keys of a recipe to set: model.backbone=ORG/NAME.")
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Result files of this model, or folders of them, for the card."),
    ] = None,
    onnx: Annotated[
        bool, typer.Option(help="Add a graph: from token ids to finished vectors, or scores.")
    ] = False,
    gguf: Annotated[
        Gguf | None,
        typer.Option(help="Add a file for llama.cpp, its weights in f32, f16 or q8_0."),
    ] = None,
    transformers_js: Annotated[
        bool,
        typer.Option(
            help="Add onnx/model.onnx, as browsers and sentence-transformers' onnx ask for."
        ),
    ] = False,
    openvino: Annotated[bool, typer.Option(help="Add a graph for OpenVINO.")] = False,
    model2vec: Annotated[bool, typer.Option(help="Add a table of words for model2vec.")] = False,
    int8: Annotated[
        bool, typer.Option(help="Of graphs: one in int8 too, with ranges from --calibrate.")
    ] = False,
    calibrate: Annotated[
        Path | None, typer.Option(help="Texts such as you will encode, for the ranges of --int8.")
    ] = None,
    dynamic: Annotated[
        bool,
        typer.Option(
            help="With --int8: ranges of each batch. Needs no texts, but a vector depends on its batch."
        ),
    ] = False,
    fp16: Annotated[
        bool, typer.Option(help="Of --onnx and --transformers-js: one in float16 too, for GPUs.")
    ] = False,
    push: Annotated[
        str | None,
        typer.Option(help="org/name on the Hub: says what an upload would do; see --confirm."),
    ] = None,
    confirm: Annotated[bool, typer.Option(help="With --push: upload now.")] = False,
    public: Annotated[
        bool, typer.Option(help="With --push: for everybody to see; private otherwise.")
    ] = False,
) -> None:
    """Write a model folder that sentence-transformers and transformers load; checked by reloading."""
    # Longer than others: half of its lines are its options.
    from embedtrain.contract.long_inputs import parse_long_inputs
    from embedtrain.release.export import export as run_export

    formats = Formats(
        onnx, transformers_js, openvino, model2vec, gguf, int8, dynamic, fp16, calibrate
    )
    texts = formats.check()
    if push is None and (confirm or public):
        raise UserError("--confirm and --public", "are for --push", cure="Add --push org/name")
    lines: list[str] = []

    def add(folder: Path) -> None:
        said: list[str] = []
        formats.add(folder, texts, said.append)
        if results:
            said.append(_add_results(folder, results))
        lines.extend(line.replace(str(folder), str(output)) for line in said)

    written = run_export(
        source, output, overwrite=overwrite, layer=layer, dim=dim, instruction=instruction,
        long_inputs=parse_long_inputs(long_inputs), sparse=sparse, probabilities=probabilities,
        overrides=overrides or (), add=add,
    )  # fmt: skip
    for line in lines:
        typer.echo(line)
    typer.echo(f"embedtrain verify {written}: compares what other programs make of it")
    if push is not None:
        _push(written, push, confirm=confirm, public=public)


def _add_results(folder: Path, paths: list[Path]) -> str:
    """Add results to the card; return what is to be said of it."""
    from embedtrain.encoding.cache import model_key
    from embedtrain.files import write_file
    from embedtrain.models.build import load_encoder
    from embedtrain.release.cards.results import add_results, load_results

    card = folder / "README.md"
    if not card.is_file():
        raise UserError(
            "--results", "need a card", cure="Export from the run folder, which has one"
        )
    found = load_results(paths)
    weights = model_key(load_encoder(str(folder)))
    write_file(card, add_results(card.read_text("utf-8"), found, weights))
    return f"{card}: {len(found)} further evaluations"


def _push(folder: Path, repository: str, *, confirm: bool, public: bool) -> None:
    from embedtrain.release.hub import plan_push
    from embedtrain.release.hub import push as run_push

    upload = plan_push(folder, repository, public=public)
    _print_upload(upload)
    if not confirm:
        typer.echo("A dry run: nothing was uploaded. Add --confirm (and --overwrite) to do it.")
        return
    typer.echo(f"uploaded and compared: {run_push(upload)}")


def _print_upload(upload: "Upload") -> None:
    from embedtrain.units import show_bytes

    kind = "private" if upload.private else "PUBLIC"
    size = show_bytes(upload.num_bytes)
    typer.echo(f"{upload.repository} ({kind}): {len(upload.files)} files, {size}")
    for name, num_bytes in upload.files:
        typer.echo(f"  {name}  {num_bytes:,} bytes")
    for reader, problems in upload.problems.items():
        typer.echo(f"{reader}: {'; '.join(problems) or 'loads it'}")
