"""Models with the sizes of well-known ones and random weights, and batches of random tokens: nothing is loaded."""

from types import SimpleNamespace
from typing import Any

import torch
from gpu_report_setting import Missing, Setting
from torch import nn

TOKENS = 32_768
"""Of a step."""
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SMALL = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "BERT-base": ("bert", NO_DROPOUT),
    "MiniLM": ("bert", SMALL | NO_DROPOUT),
    "ModernBERT-base": ("modernbert", {}),
    "Qwen3-0.6B": (
        "qwen3",
        {
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 3072,
            "max_position_embeddings": 32_768,
            "vocab_size": 151_936,
        },
    ),
}
"""Family and sizes, where they differ from the family's own."""
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "vocab_size": 300,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
OWN = (
    "num_key_value_heads", "head_dim", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id",
)  # fmt: skip
"""What a BERT has not."""
WORDS = 200


def build_model(setting: Setting, shape: str, length: int, *, packing: str = "auto") -> Any:  # noqa: ANN401
    """Return a dense encoder on the device, for texts of so many tokens at most.

    Raises:
        Missing: If transformers is not here, or the shape has fewer positions.
    """
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise Missing(f"transformers is not here: {error}"[:160]) from error
    from embedtrain.contract.texts import Contract
    from embedtrain.models.backbone.loading import Backbone
    from embedtrain.models.dense.encoder import DenseEncoder

    family, sizes = SHAPES[shape]
    if setting.tiny:
        sizes = {key: value for key, value in TINY.items() if family != "bert" or key not in OWN}
        sizes |= NO_DROPOUT if family == "bert" else {}
    config = AutoConfig.for_model(family, **sizes)
    if config.max_position_embeddings < length:
        raise Missing(f"{config.max_position_embeddings} positions")
    torch.manual_seed(0)
    with torch.device(setting.device):
        model = AutoModel.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    contract = Contract(
        pooling="last_token" if family == "qwen3" else "mean",
        similarity="cosine",
        query_prompt="",
        document_prompt="",
        query_length=length,
        document_length=length,
    )
    backbone = Backbone(model, build_tokenizer(), shape, setting.folder)
    return DenseEncoder(backbone, contract, packing=packing).to(setting.device)


def build_tokenizer() -> Any:  # noqa: ANN401 - transformers is untyped
    """Return a tokenizer that knows a few words and puts a token before and behind each text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    words = [*special, *(f"w{number}" for number in range(WORDS))]
    backend = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(special)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = ("pad", "cls", "sep", "unk", "mask")
    tokens = {f"{name}_token": token for name, token in zip(names, special, strict=True)}
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]", **tokens)


def random_batch(setting: Setting, length: int) -> Any:  # noqa: ANN401 - of embedtrain
    """Return pairs of texts of an eighth of ``length`` to all of it, on the host."""
    from embedtrain.packed import Texts
    from embedtrain.types import Relevance, RetrievalBatch

    tokens = 256 if setting.tiny else TOKENS
    generator = torch.Generator().manual_seed(0)
    count = max(2, round(tokens / (2 * (length + length / 8) / 2)))

    def texts() -> Texts:
        lengths = torch.randint(max(3, length // 8), length + 1, (count,), generator=generator)
        ids = torch.randint(5, WORDS, (int(lengths.sum()),), generator=generator)
        return Texts(ids, lengths)

    rows = torch.arange(count)
    relevance = Relevance(rows, rows + count, rows, rows[:, None], torch.full((count, 1), -1))
    return RetrievalBatch(texts(), texts(), rows, rows, relevance)


class Training:
    """A real training step, as Lightning's loop runs it, without the loop."""

    def __init__(self, model: nn.Module, batch: Any, *, compiled: bool = False, precision: str = "bf16") -> None:  # noqa: ANN401  # fmt: skip
        from embedtrain.objectives.info_nce import InfoNCE
        from embedtrain.training.module import RetrievalModule
        from embedtrain.training.settings import TrainerConfig

        config = TrainerConfig(
            steps=1000,
            batch_size=len(batch.query_rows),
            chunk_tokens=2 * TOKENS,
            precision=precision,
            compile=compiled,
            log_every=1000,
        )
        self.batch = batch
        self.objective = InfoNCE()
        self.module = RetrievalModule(model.train(), [self.objective], config, 1000)
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        trainer = SimpleNamespace(
            global_step=1, optimizers=[self.optimizer], loggers=[], default_root_dir="."
        )
        self.module._trainer = trainer  # noqa: SLF001 - the loop would set it

    def __call__(self) -> None:
        """Do one step."""
        batch = self.batch.to(self.module.model.device)
        self.module.training_step(batch, 0).backward()
        self.module.configure_gradient_clipping(self.optimizer, self.module.config.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
