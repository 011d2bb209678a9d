import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

from embedtrain.cli.main import app
from embedtrain.data.pretraining.corpus import CorpusConfig
from embedtrain.data.pretraining.masked_batches import frame_of
from embedtrain.errors import UserError
from embedtrain.workflows.tokenizer import train_tokenizer

TEXTS = ["The cat runs over the dog.", "Zürich is not in Österreich, 東京 neither!", "small birds"]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(TEXTS * 20), encoding="utf-8")
    return CorpusConfig(path=str(path))


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_it_reads_what_it_was_trained_on_and_frames_every_text(corpus, tmp_path, kind):
    size = train_tokenizer([corpus], tmp_path / "tok", kind=kind, vocabulary_size=320)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tok")
    assert len(tokenizer) == size <= 320
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.cls_token_id
        assert ids[-1] == tokenizer.sep_token_id
        assert tokenizer.unk_token_id not in ids
    frame = frame_of(tokenizer, size, kind)
    assert (len(frame.prefix), len(frame.suffix)) == (1, 1)
    assert frame.special.sum() == 5


def test_byte_pairs_know_every_character(corpus, tmp_path):
    train_tokenizer([corpus], tmp_path / "tok", kind="bpe", vocabulary_size=320)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tok")
    ids = tokenizer("ßπ🙂", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == "ßπ🙂"


def test_byte_pairs_are_the_same_at_every_run(corpus, tmp_path):
    for name in "ab":
        train_tokenizer([corpus], tmp_path / name, kind="bpe", vocabulary_size=320)
    first, second = (AutoTokenizer.from_pretrained(tmp_path / name).get_vocab() for name in "ab")
    assert first == second


def test_capitals_are_kept_if_wanted(corpus, tmp_path):
    train_tokenizer([corpus], tmp_path / "tok", vocabulary_size=320, lowercase=False)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tok")
    assert tokenizer("The")["input_ids"] != tokenizer("the")["input_ids"]


def test_unusable_wishes_are_refused(corpus, tmp_path):
    with pytest.raises(UserError, match="--vocabulary-size is less than 300; got 5"):
        train_tokenizer([corpus], tmp_path / "tok", vocabulary_size=5)
    with pytest.raises(UserError, match="--output exists"):
        train_tokenizer([corpus], tmp_path, vocabulary_size=320)
    (tmp_path / "blank.txt").write_text("\n \n")
    with pytest.raises(UserError, match="holds no text"):
        train_tokenizer([CorpusConfig(path=str(tmp_path / "blank.txt"))], tmp_path / "tok")
    assert not (tmp_path / "tok").exists()


def test_the_command_writes_a_folder(corpus, tmp_path):
    command = [
        "tokenizer",
        corpus.path,
        "--output",
        str(tmp_path / "tok"),
        "--vocabulary-size",
        "310",
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "tokens" in result.output
    assert (tmp_path / "tok" / "tokenizer.json").is_file()
