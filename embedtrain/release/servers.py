"""What servers need of a model folder: the rules by which text-embeddings-inference and vLLM load one.

Read in their sources (text-embeddings-inference commit 0d124dc, vLLM 0.11); no server is started.
"""

from pathlib import Path
from typing import Any

from embedtrain.models.backbone.fetching import read_modules
from embedtrain.models.backbone.folder_files import AnyFile, read_form
from embedtrain.models.dense.layout import CONTRACT_FILE

READERS = ("text-embeddings-inference", "vLLM")
MODULES = {
    f"sentence_transformers.models.{name}": name
    for name in ("Transformer", "Pooling", "Dense", "Normalize")
}
POOLING_FLAGS = ("pooling_mode_cls_token", "pooling_mode_mean_tokens")
ACTIVATIONS = (
    "torch.nn.modules.activation.Tanh",
    "torch.nn.modules.linear.Identity",
)


def loading_problems(folder: Path) -> dict[str, list[str]]:
    """Say for each reader why it would not give the folder's own vectors or scores; an empty list: it does."""
    if _read(folder, CONTRACT_FILE).get("kind") == "late_interaction":
        inference = ["it has no late interaction: /embed_all leaves the projection out"]
        return dict(zip(READERS, (inference, _late_interaction(folder)), strict=True))
    if _read(folder, CONTRACT_FILE).get("kind") == "cross_encoder":
        problems = [*_files(folder), *_classes(folder)]
        return dict.fromkeys(READERS, problems)
    common = [*_files(folder), *_modules(folder), *_pooling(folder), *_dense(folder)]
    settings = _read(folder, "sentence_bert_config.json")
    there = (folder / "sentence_bert_config.json").is_file()
    if there and not isinstance(settings.get("max_seq_length"), int):
        common.append("sentence_bert_config.json needs max_seq_length")
    prompts = _read(folder, "config_sentence_transformers.json").get("prompts") or {}
    inference = [
        f"the prompt {name} is no text"
        for name, text in prompts.items()
        if not isinstance(text, str)
    ]
    keys = ("max_seq_length", "do_lower_case") if settings else ()
    vllm = [f"sentence_bert_config.json needs {key}" for key in keys if key not in settings]
    return dict(zip(READERS, ([*common, *inference], [*common, *vllm]), strict=True))


def _read(folder: Path, name: str) -> dict[str, Any]:
    return read_form(folder / name, AnyFile, optional=True).root


def _files(folder: Path) -> list[str]:
    needed = ("config.json", "tokenizer.json")
    problems = [f"{name} is missing" for name in needed if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        problems.append("there are no safetensors weights")
    return problems


def _classes(folder: Path) -> list[str]:
    """A reranker is a classifier with one class, which text-embeddings-inference wants named both ways."""
    config = _read(folder, "config.json")
    problems = [
        f"config.json needs {key}" for key in ("id2label", "label2id") if not config.get(key)
    ]
    if len(config.get("id2label") or {}) > 1:
        problems.append("it has several classes, so /rerank refuses it")
    if _read(folder, CONTRACT_FILE).get("contract", {}).get("template") is not None:
        problems.append("/rerank leaves the template out: send both texts in it to /predict")
    return problems


def _modules(folder: Path) -> list[str]:
    """An unknown module is skipped without a word, which gives other vectors."""
    modules = read_modules(folder)
    if not modules:
        return ["modules.json is missing, so normalisation and projection are left out"]
    types = [kind for kind, _ in modules]
    return [f"modules.json names {kind}, which is skipped" for kind in types if kind not in MODULES]


def _pooling(folder: Path) -> list[str]:
    config = _read(folder, "1_Pooling/config.json")
    odd = [flag for flag in POOLING_FLAGS if not isinstance(config.get(flag), bool)]
    problems = [f"1_Pooling/config.json needs the boolean {flag}" for flag in odd]
    known = (*POOLING_FLAGS, "pooling_mode_lasttoken")
    if config and not any(config.get(flag) is True for flag in known):
        problems.append("its pooling is none of cls, mean and last token")
    return problems


def _dense(folder: Path) -> list[str]:
    problems = []
    for config in sorted(folder.glob("*_Dense/config.json")):
        content = _read(folder, str(config.relative_to(folder)))
        if content.get("activation_function", ACTIVATIONS[1]) not in ACTIVATIONS:
            problems.append(f"{config.parent.name} has an activation that is not Tanh or Identity")
        if "bias" not in content:
            problems.append(f"{config.parent.name}/config.json needs bias")
    return problems


def _late_interaction(folder: Path) -> list[str]:
    """Only checkpoints in the layout of Stanford's ColBERT load by themselves; ours need an override."""
    names = _read(folder, "config.json").get("architectures") or ["?"]
    if names == ["HF_ColBERT"]:
        return []
    return [f"the architecture {names[0]} needs --hf-overrides to one of vLLM's ColBERT models"]
