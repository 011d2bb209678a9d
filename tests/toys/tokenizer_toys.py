"""Small tokenizers of every family, built from a vocabulary or trained on a few lines in no time."""

from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

LINES = [
    "the red cat runs over the small house, and the dog sleeps near 12 trees.",
    "It's a bird! Don't jump; the café's naïve owner (born 1984) said “no”.",
    "über straße élan ÀÉ 中文 字符 日本語 текст кот Ωμέγα",
] * 3


WORDS = [
    "the", "cat", "It's", "don't", "(born", "1984)", "café", "naïve", "e\u0301", "\u0301a", "Ωμέγα", "кот",
    "中文", "[MASK]", "<mask>", "</s>", "[SEP]", "a" * 30, "x.", "“no”", "\u0149", "…", "ﬁ", "\u00a0", "\u0385",
    "\u0600", "🙂", "'", "-", "12", "3", "\u200d", "▁", "▁a", "Ġ", "I\u0307",
]  # fmt: skip
GAPS = [" ", " ", " ", "  ", "\n", "\t", "", " \n", "\u3000"]


@st.composite
def odd_texts(draw, longest=12):
    words = draw(st.lists(st.sampled_from(WORDS), max_size=longest))
    return "".join(word + draw(st.sampled_from(GAPS)) for word in words)


def ids_of(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def wordpiece(pre_tokenizer, normalizer=None):
    letters = sorted(set("".join(LINES).lower()))
    names = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{one}" for one in letters)]
    names += ["the", "cat", "##at", "dog", "house", "sl", "##eep", "##s", "it"]
    vocabulary = {name: place for place, name in enumerate(dict.fromkeys(names))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=20))
    made.normalizer = normalizer or normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizer
    made.add_special_tokens(["[CLS]", "[SEP]", AddedToken("[MASK]", lstrip=True)])
    return made


def trained(model, trainer, pre_tokenizer=None, normalizer=None):
    made = Tokenizer(model)
    if normalizer:
        made.normalizer = normalizer
    if pre_tokenizer:
        made.pre_tokenizer = pre_tokenizer
    made.train_from_iterator(LINES, trainer)
    return made


def byte_level(pre_tokenizer, normalizer=None):
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [AddedToken("<mask>", lstrip=True, special=True), "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    return trained(models.BPE(), trainer, pre_tokenizer, normalizer)


def unigram(pre_tokenizer=None, normalizer=None):
    trainer = trainers.UnigramTrainer(
        vocab_size=150, unk_token="<unk>", special_tokens=["<unk>", "</s>"], show_progress=False
    )
    return trained(models.Unigram(), trainer, pre_tokenizer, normalizer)


def unsplit_bpe(normalizer, tokens=()):
    """Merges over the whole text, as Llama 2 and Gemma do; ``tokens`` are made by a last merge."""
    letters = ["<unk>", "▁", *sorted(set("".join(LINES)) - {" "})]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("c", "a"), ("▁", "▁"), *tokens]
    names = dict.fromkeys([*letters, *("".join(pair) for pair in merges)])
    vocabulary = {name: place for place, name in enumerate(names)}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizer
    return made


def qwen_split():
    expression = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(expression), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def llama_normalizer():
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def spread_words():
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])


def tokenizers_by_proof():
    """Return each tokenizer with what is to be proved of it: 2 pieces, 1 head, 0 nothing."""
    squeeze = normalizers.Replace(Regex(" {2,}"), " ")
    xlm = normalizers.Sequence([normalizers.NFKC(), squeeze])
    return {
        "bert": (wordpiece(pre_tokenizers.BertPreTokenizer()), 2),
        "words": (wordpiece(pre_tokenizers.Whitespace(), normalizers.Lowercase()), 2),
        "byte-level": (byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), normalizers.NFC()), 2),
        "qwen": (byte_level(qwen_split()), 2),
        "metaspace": (unigram(pre_tokenizers.Metaspace(), normalizers.NFKC()), 2),
        "xlm": (unigram(spread_words(), xlm), 2),
        "stripped": (unigram(spread_words(), normalizers.Strip()), 1),
        "llama": (unsplit_bpe(llama_normalizer()), 1),
        "gemma": (unsplit_bpe(normalizers.Replace(" ", "▁")), 2),
        "crossing": (unsplit_bpe(normalizers.Replace(" ", "▁"), [("e", "▁")]), 0),
        "scripts": (unigram(pre_tokenizers.UnicodeScripts()), 0),
        "own expression": (byte_level(pre_tokenizers.Split(Regex(r"\S+ \S+|\s"), "isolated")), 0),
    }  # fmt: skip
