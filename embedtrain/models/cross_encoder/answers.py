"""A causal language model as a cross-encoder: how much likelier one answer is than another behind the pair."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from embedtrain.contract.pair_contract import QUERY_SHARE, PairContract
from embedtrain.contract.pairs import PLACEHOLDERS, PairParts
from embedtrain.contract.texts import Pooling
from embedtrain.errors import UserError
from embedtrain.files import write_file, write_json
from embedtrain.models.backbone.folder_files import (
    AnswersFile,
    ModulesFile,
    SettingsFile,
    inside,
    read_form,
)
from embedtrain.models.backbone.loading import Backbone
from embedtrain.models.backbone.pretrained import loading
from embedtrain.models.pooling import pool

ST = "sentence_transformers"
TRANSFORMER = f"{ST}.base.modules.transformer.Transformer"
LOGIT_SCORE = f"{ST}.cross_encoder.modules.logit_score.LogitScore"
EDGES = ("a", "7", "a.", "a?", "(a)", '"a"')
"""Texts that begin and end in each kind of sign that tokenizers join with a neighbour."""


class AnswerHead(nn.Module):
    """The log-odds of two answers of one token each: the last state times the difference of their rows, in float32.

    The rows are subtracted before they are multiplied: two rounded logits of size 20 leave few digits to a
    difference of 0.1. They stay what they are; adapters train the states.

    Args:
        whole: A ``...ForCausalLM`` of transformers.
        answers: The entries of yes and no; without no the logit of yes is the score.
    """

    def __init__(self, whole: Any, answers: tuple[int, ...]) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        output = whole.get_output_embeddings()
        yes, *no = answers
        row = output.weight[yes].detach().float()
        offset = torch.zeros(1) if output.bias is None else output.bias[yes].detach().float()[None]
        if no:
            row = row - output.weight[no[0]].detach().float()
            offset = offset if output.bias is None else offset - output.bias[no[0]].detach().float()
        self.row: Tensor
        self.offset: Tensor
        self.register_buffer("row", row.clone())
        self.register_buffer("offset", offset.clone())
        self.pooling: Pooling = "last_token"

    def forward(
        self, states: Float[Tensor, "tokens width"], lengths: Int64[Tensor, " texts"]
    ) -> Float[Tensor, "texts 1"]:
        """Return the score of each text."""
        state = pool(states, lengths, "last_token")
        with torch.autocast(state.device.type, enabled=False):
            return self.logits(state)

    def logits(self, state: Float[Tensor, "texts width"]) -> Float[Tensor, "texts 1"]:
        """Return the score of a text by its last state."""
        scores: Tensor = state @ self.row.to(state.dtype)[:, None] + self.offset
        return scores

    @contextmanager
    def returned(self, whole: Any) -> Iterator[None]:  # noqa: ANN401, ARG002 - as of classifiers
        """Nothing was taken out of the language model."""
        yield


def answer_entry(tokenizer: Any, template: str, word: str, place: str) -> int:  # noqa: ANN401
    """Return the entry of the vocabulary that stands for an answer behind a template's end.

    Raises:
        UserError: If it is not one token there, or is unknown to the tokenizer.
    """
    end = template[max(template.find(name) + len(name) for name in PLACEHOLDERS) :]

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    before, together = ids(end), ids(end + word)
    unknown = tokenizer.unk_token_id
    if together[:-1] != before or (unknown is not None and together[-1] == unknown):
        raise UserError(
            place, "is not one token behind the template's end", got=word,
            cure="Give another word, with or without a space before it, or end the template otherwise",
        )  # fmt: skip
    return together[-1]


def refuse_joined(tokenizer: Any, contract: PairContract, parts: PairParts) -> None:  # noqa: ANN401
    """Refuse a template that the tokenizer joins with a text: other readers tokenise both as one string.

    Raises:
        UserError: If the tokens of a text and of what stands around it are not those of the whole.
    """
    assert contract.template is not None

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    for text in EDGES:
        query, document = (ids(contract.prompt(side) + text) for side in ("query", "document"))
        apart = (*parts.prefix, *query, *parts.middle, *document, *parts.suffix)
        whole = contract.template
        for name in PLACEHOLDERS:
            whole = whole.replace(name, text)
        if apart != ids(whole):
            raise UserError(
                "model.template",
                f"is joined by the tokenizer with texts such as {text!r}, "
                "so readers of the export would see other tokens",
                got=contract.template,
                cure="Put a special token or a space between text and template: ' \\n' instead of '\\n'",
            )


def write_answers(folder: Path, contract: PairContract) -> None:
    """Write beside a causal language model how sentence-transformers (5.4 and later) scores pairs by it."""
    modules = [(0, "", TRANSFORMER), (1, "1_LogitScore", LOGIT_SCORE)]
    entries = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, path, kind in modules]
    write_file(folder / "modules.json", json.dumps(entries, indent=2))
    yes, *no = contract.answers
    (folder / "1_LogitScore").mkdir()
    score = {"true_token_id": yes, "false_token_id": no[0] if no else None}
    write_json(
        folder / "1_LogitScore" / "config.json", score | {"module_input_name": "causal_logits"}
    )
    way = {"method": "forward", "method_output_name": "logits"}
    inputs = {"text": way, "message": way | {"format": "flat"}}
    settings = {"transformer_task": "text-generation", "modality_config": inputs}
    write_json(
        folder / "sentence_bert_config.json", settings | {"module_output_name": "causal_logits"}
    )
    activation = "activation.Sigmoid" if contract.says_probability else "linear.Identity"
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {},
            "activation_fn": f"torch.nn.modules.{activation}",
            "default_prompt_name": None,
            "model_type": "CrossEncoder",
            "prompts": {},
        },
    )


def answers_file(folder: Path) -> Path | None:
    """Return the file that says which answers of a language model score, in sentence-transformers' form; None without."""
    listed = folder / "modules.json"
    entries = read_form(listed, ModulesFile).root if listed.is_file() else []
    paths = [one.path for one in entries if one.kind == "LogitScore"]
    return inside(folder, paths[0], listed) / "config.json" if paths else None


def contract_of_answers(backbone: Backbone) -> PairContract:
    """Return what such a folder says: its chat template with a pair in it, the answers, the length of its tokenizer.

    Raises:
        UserError: If it has no chat template for a query and a document.
    """
    folder, tokenizer = backbone.folder, backbone.tokenizer
    found = answers_file(folder)
    assert found is not None
    answers = read_form(found, AnswersFile)
    said = read_form(folder / "config_sentence_transformers.json", SettingsFile, optional=True)
    messages = [{"role": name.strip("{}"), "content": name} for name in PLACEHOLDERS]
    if said.default_prompt_name is not None:
        system = {"role": "system", "content": said.texts().get(said.default_prompt_name, "")}
        messages.insert(0, system)
    if not tokenizer.chat_template:
        raise UserError(
            folder, "scores by answers and has no chat template to put pairs into",
            cure="Score with --as yes_no and --template",
        )  # fmt: skip
    with loading(backbone.path):
        template: str = tokenizer.apply_chat_template(messages, tokenize=False)
    length = min(backbone.max_length, tokenizer.model_max_length)
    entries = (answers.true_token_id, answers.false_token_id)
    return PairContract(
        scoring="yes_no",
        query_length=round(QUERY_SHARE * length),
        pair_length=length,
        template=template,
        answers=tuple(entry for entry in entries if entry is not None),
        says_probability=(said.activation_fn or "").endswith("Sigmoid"),
    )


def chat_template(template: str) -> str:
    """Return a chat template that writes messages of the roles query and document into a template.

    A model's own would write them as turns of a conversation without a question, and no reader would complain.
    """
    parts = ["{%- set texts = namespace(query='', document='') -%}"]
    parts += ["{%- for message in messages -%}"]
    for name in ("query", "document"):
        take = f"{{%- set texts.{name} = message['content'] -%}}"
        parts.append(f"{{%- if message['role'] == '{name}' -%}}{take}{{%- endif -%}}")
    parts.append("{%- endfor -%}")
    rest = template
    while rest:
        places = [(rest.find(name), name) for name in PLACEHOLDERS if name in rest]
        start, name = min(places) if places else (len(rest), "")
        if start:
            parts.append("{{- " + json.dumps(rest[:start], ensure_ascii=False) + " -}}")
        if name:
            parts.append("{{- texts." + name.strip("{}") + " -}}")
        rest = rest[start + len(name) :]
    return "".join(parts)
