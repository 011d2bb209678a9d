"""What the card of a model folder says of the graph in it: how to load and run it."""

import json

from embedtrain.contract.pair_contract import PairContract
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
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


def card_with_graph(card: str, model: TextModel, file: str) -> str:
    """Return a card that says, at its end, how to run the graph in ``file`` of its folder."""
    text = OF_TEXTS.format(file=file)
    if isinstance(model, CrossEncoderModel):
        text = f"{OF_PAIRS.format(file=file)}\n\n{fenced(_script(model.contract, file), 'python')}"
    return f"{replace_section(card, HEADING, '').rstrip()}\n\n{HEADING}\n\n{text}\n"


def _script(contract: PairContract, file: str) -> str:
    middle = PLAIN.replace("LENGTH", str(contract.pair_length))
    if contract.template is not None:
        middle = TEMPLATED.replace("TEMPLATE", json.dumps(contract.template, ensure_ascii=False))
    return BEGIN.replace("FILE", file) + middle + END
