"""Tiny classifiers of pairs, of each family, with the tokenizers that those have."""

from pathlib import Path

import torch
from backbone_toys import tokenizer
from sentence_toys import SPECIAL, WORDS, build_tokenizer, sentence
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)

from embedtrain.types import Relevance, RetrievalBatch

SIZES = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
DECODER = {"num_key_value_heads": 2}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 200,
          "max_position_embeddings": 66, "dropout": 0.0, "attention_dropout": 0.0}  # fmt: skip
MODERN = {**SIZES, "pad_token_id": 0, "local_attention": 8, "global_attn_every_n_layers": 2}
FAMILIES = {
    "bert": ("Bert", SIZES | NO_DROPOUT),
    "roberta": ("Roberta", SIZES | NO_DROPOUT | {"pad_token_id": 0}),
    "xlm_roberta": ("XLMRoberta", SIZES | NO_DROPOUT | {"pad_token_id": 0}),
    "distilbert": ("DistilBert", DISTIL),
    "electra": ("Electra", SIZES | NO_DROPOUT | {"embedding_size": 32}),
    "mpnet": ("MPNet", SIZES | NO_DROPOUT | {"pad_token_id": 0}),
    "deberta": ("DebertaV2", SIZES | NO_DROPOUT | {"type_vocab_size": 0, "pooler_hidden_size": 32}),
    "modernbert": ("ModernBert", MODERN | {"classifier_pooling": "cls"}),
    "modernbert_mean": ("ModernBert", MODERN | {"classifier_pooling": "mean"}),
    "llama": ("Llama", SIZES | DECODER | {"pad_token_id": 1}),
}
TYPED = ("bert", "electra")
"""Families that tell the texts of a pair apart."""
MARKS = ("<|user|>", "<|end|>", "<|answer|>")
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Where Qwen's tokenizer splits: signs and the line breaks behind them are one piece."""


def save_classifier(folder: Path, family: str, *, num_labels: int = 1, seed: int = 0) -> Path:
    """Write a classifier with random weights, larger than usual so that scores differ."""
    import transformers

    name, sizes = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**sizes, num_labels=num_labels)
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}ForSequenceClassification")(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.2)
    model.save_pretrained(folder)
    save_pair_tokenizer(folder, family)
    return folder


def save_pair_tokenizer(folder: Path, family: str) -> None:
    """Write a tokenizer that puts around a pair what the family's do."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = build_tokenizer(special=SPECIAL, template="[CLS] $A [SEP]")
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    kind = 1 if family in TYPED else 0
    middle = "[SEP]:0 [SEP]:0" if "roberta" in family else "[SEP]:0"
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS]:0 $A:0 {middle} $B:{kind} [SEP]:{kind}",
        special_tokens=ids,
    )
    if family == "llama":
        tokenizer.post_processor = None
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[SEP]" if family == "llama" else "[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"]
        if family in TYPED
        else ["input_ids", "attention_mask"],
    ).save_pretrained(folder)


def save_language(folder: Path, *, is_tied: bool, joins: bool) -> Path:
    """Write a tiny Llama with a byte-level vocabulary that knows yes and no, whose padding ends its texts.

    With ``joins`` its tokenizer makes one token of a sign and a line break.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not joins)
    split = [pre_tokenizers.Split(Regex(QWEN), "isolated")] if joins else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=[AddedToken(one, special=True) for one in MARKS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["yes no yes no the red cat sleeps?\nso.\nwhat?\n"] * 9, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|end|>", eos_token="<|end|>"
    ).save_pretrained(folder)
    torch.manual_seed(1)
    sizes = SIZES | DECODER | {"vocab_size": 330, "max_position_embeddings": 512}
    model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=is_tied))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.2)
    model.save_pretrained(folder)
    return folder


def pairs_of_lengths(*lengths: tuple[int, int]) -> list[tuple[str, str]]:
    """Return random pairs of so many words."""
    generator = torch.Generator().manual_seed(4)
    return [(sentence(generator, one), sentence(generator, other)) for one, other in lengths]


def marked_rows(count: int, seed: int, negatives: int = 3) -> list[dict[str, object]]:
    """Rows of a rule that no inner product tells: the first word of the query stands last in the positive.

    Negatives hold the same words in another order.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        chosen = [WORDS[place] for place in torch.randperm(8, generator=generator)[:4].tolist()]
        query = chosen[int(torch.randint(4, (1,), generator=generator))]
        others = [word for word in chosen if word != query]
        wrong = [" ".join([query, *others]), " ".join([others[0], query, *others[1:]])]
        wrong.append(" ".join([*others[:2], query, others[2]]))
        row = {"query": query, "positive": " ".join([*others, query])}
        rows.append(row | {"negatives": wrong[:negatives]})
    return rows


def batch_of(model, pairs, repeat=False):
    """Three queries with three, two and four documents; the third shares documents with the first."""
    queries = model.tokenization.encode(["red cat", "the small dog", "blue house"], "query")
    texts = [" ".join(document.split()[:6]) for _, document in pairs]
    documents = model.tokenization.encode(list(dict.fromkeys(texts)), "document")
    size = len(documents)
    owners = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    rows = torch.tensor([0, 1, 2, 3, 4, 1, 2, 3, 0]) % size
    query_rows = torch.arange(3)
    positives = torch.tensor([[0], [3], [5]])
    if repeat:  # the third query is the first again, with two of its documents
        query_rows = torch.tensor([0, 1, 0])
    relevance = Relevance(
        query_ids=query_rows,
        document_ids=rows + 100,
        owners=owners,
        positives=positives,
        known_positives=torch.full((3, 1), -1),
        teacher_scores=torch.linspace(-1, 2, 9).sin(),
    )
    return RetrievalBatch(queries, documents, query_rows, rows, relevance)


def gradients(model, batch, execution, objective):
    model.zero_grad()
    loss = objective(model(batch, execution)).loss
    loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), found


def save_answering(folder, model):
    """Save an encoder-decoder with weights drawn so that scores differ; return its folder."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3, generator=generator)
    model.save_pretrained(folder)
    tokenizer("t5").save_pretrained(folder)
    return folder
