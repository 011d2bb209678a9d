"""What the card of a model folder says of the graph in it: how to load and run it."""

import json

from embedtrain.contract.pair_contract import PairContract
from embedtrain.contract.texts import AnyContract, Contract
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.text_model import TextModel
from embedtrain.release.cards.markdown import fenced
from embedtrain.release.cards.results import replace_section

HEADING = "## ONNX"
OF_TEXTS = """`{file}` takes the `input_ids` and `attention_mask` of texts, with their prompts and padded on the right, and
gives finished `embeddings`: onnxruntime needs no further layer."""
OF_PAIRS = """`{file}` takes pairs that are padded on the right and gives their `logits`, one for each score or class:"""
BEGIN = """import onnxruntime
from transformers import AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
session = onnxruntime.InferenceSession(f"{folder}/FILE")
queries, documents = ["your query", "your query"], ["a document", "another document"]
"""
PLAIN = """length = {"max_length": LENGTH, "truncation": "only_second"}
inputs = tokenizer(queries, documents, padding=True, return_tensors="np", **length)
"""
TEMPLATED = """template = TEMPLATE
texts = [template.replace("{query}", q).replace("{document}", d) for q, d in zip(queries, documents)]
inputs = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="np")
"""
END = """names = [one.name for one in session.get_inputs()]
print(session.run(["logits"], {name: inputs[name] for name in names})[0])"""


BROWSER = """import { AutoModel, AutoTokenizer } from "@huggingface/transformers";

const model = await AutoModel.from_pretrained("org/name", { dtype: "fp32" });
const tokenizer = await AutoTokenizer.from_pretrained("org/name");
const limits = { padding: true, truncation: true, max_length: LENGTH };
const { sentence_embedding } = await model(await tokenizer([QUERY], limits));"""
STATES_FILE = "onnx/model.onnx"
OF_STATES = f"""`{STATES_FILE}` gives finished vectors as `sentence_embedding`, and the token states as `last_hidden_state` for readers
that pool by themselves. In sentence-transformers: `SentenceTransformer(folder, backend="onnx")`. transformers.js cuts texts
that are too long without their last special token, which moves their vectors a little."""
OPENVINO = """import openvino
from transformers import AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
graph = openvino.compile_model(f"{folder}/FILE", "CPU")
inputs = tokenizer([PROMPT"your query"], padding=True, truncation=True, max_length=LENGTH, return_tensors="np")
print(graph({one.any_name: inputs[one.any_name] for one in graph.inputs})["OUTPUT"])"""
PAIRS_END = 'print(graph({one.any_name: inputs[one.any_name] for one in graph.inputs})["logits"])'
PRECISION = """OpenVINO computes in bfloat16 where the CPU has it; `{"INFERENCE_PRECISION_HINT": "f32"}` as a third argument of
`compile_model` makes it exact."""


def card_with_graph(
    card: str, model: TextModel, file: str, *, states: bool = False, smaller: tuple[str, ...] = ()
) -> str:
    """Return a card that says, at its end, how to run the graph in ``file`` of its folder.

    Args:
        card: What it says so far.
        model: Of the graph.
        file: Its place in the folder.
        states: Say how readers of token states load theirs.
        smaller: Names of graphs in smaller numbers.
    """
    contract = model.contract
    if isinstance(contract, PairContract):
        parts = [OF_PAIRS.format(file=file), fenced(_script(contract, file), "python")]
    else:
        finished = [] if file == STATES_FILE else [OF_TEXTS.format(file=file)]
        parts = finished + [OF_STATES, fenced(_browser(contract), "js")] * states
    if smaller:
        parts.append(f"In smaller numbers: {', '.join(f'`{name}`' for name in smaller)}.")
    return with_section(card, HEADING, "\n\n".join(parts))


def card_with_openvino(card: str, model: TextModel, file: str) -> str:
    """Return a card that says, at its end, how to run the graph in ``file`` by OpenVINO."""
    contract = model.contract
    if isinstance(contract, PairContract):
        head, _, _ = _script(contract, file).partition("names = [")
        head = head.replace(
            "session = onnxruntime.InferenceSession(", "graph = openvino.compile_model("
        )
        script = head.replace("import onnxruntime\n", "import openvino\n") + PAIRS_END
    else:
        output = "sentence_embedding" if isinstance(model, DenseEncoder) else "embeddings"
        script = (
            OPENVINO.replace("FILE", file)
            .replace("PROMPT", _prompted(contract))
            .replace("OUTPUT", output)
        )
        script = script.replace("LENGTH", str(contract.query_length))
    return with_section(card, "## OpenVINO", f"{fenced(script, 'python')}\n\n{PRECISION}")


def card_with_model2vec(card: str, contract: Contract, folder: str) -> str:
    """Return a card that says, at its end, how to load the table in ``folder`` by model2vec."""
    script = f"""from model2vec import StaticModel

model = StaticModel.from_pretrained("path/to/this/folder/{folder}")
print(model.encode([{_prompted(contract)}"your query"]))"""
    return with_section(card, "## model2vec", fenced(script, "python"))


def with_section(card: str, heading: str, text: str) -> str:
    """Return a card whose last section is this one."""
    return f"{replace_section(card, heading, '').rstrip()}\n\n{heading}\n\n{text}\n"


def _prompted(contract: AnyContract) -> str:
    return f"{json.dumps(contract.query_prompt, ensure_ascii=False)} + " * bool(
        contract.query_prompt
    )


def _browser(contract: AnyContract) -> str:
    script = BROWSER.replace("QUERY", f'{_prompted(contract)}"your query"')
    return script.replace("LENGTH", str(contract.query_length))


def _script(contract: PairContract, file: str) -> str:
    middle = PLAIN.replace("LENGTH", str(contract.pair_length))
    if contract.template is not None:
        middle = TEMPLATED.replace("TEMPLATE", json.dumps(contract.template, ensure_ascii=False))
    return BEGIN.replace("FILE", file) + middle + END
