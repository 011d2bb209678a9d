"""How a command ends: a line for the user's mistake, a log for ours, no secret in either."""

import errno
import os
import subprocess
import sys
import time

import pytest
import typer
from typer.testing import CliRunner

from embedtrain.cli import ending
from embedtrain.cli.command import Command, Escaped
from embedtrain.cli.ending import end
from embedtrain.cli.main import main
from embedtrain.errors import Interrupted, RankDied, UserError
from embedtrain.redaction import redact


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EMBEDTRAIN_VERBOSITY", "")
    monkeypatch.delenv("EMBEDTRAIN_DEBUG", raising=False)
    monkeypatch.setattr(sys, "argv", ["/bin/embedtrain", "train", "my.yaml"])


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("a.yaml", "is wrong", got="b\nc"), 2, "error: a.yaml is wrong; got 'b\\nc'."),
        (FileNotFoundError(errno.ENOENT, "no", "a"), 2, "error: a does not exist. Check the path."),
        (OSError(errno.ENOSPC, "full", "a"), 2, "error: a cannot be written: the disk is full"),
        (ValueError("embedded null byte"), 2, "error: a path holds a NUL character."),
        (MemoryError(), 2, "error: memory does not suffice on this machine."),
        (RankDied("rank 1 was killed"), 1, "error: rank 1 was killed"),
        (Interrupted("saved"), 130, "saved"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=str,
)
def test_what_is_not_our_mistake_is_one_line(error, code, line, capsys, monkeypatch, tmp_path):
    assert end(raised(error)) == code
    said = capsys.readouterr().err
    assert said.startswith(line)
    assert said.count("\n") == 1
    monkeypatch.setenv("EMBEDTRAIN_DEBUG", "1")
    assert end(raised(error)) == code
    assert "Traceback" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyError(3), RecursionError(), ValueError()])
def test_our_own_mistake_leaves_a_log_that_only_the_user_reads(error, capsys, tmp_path):
    assert end(raised(error)) == 1
    *above, last = capsys.readouterr().err.splitlines()
    assert above[0].startswith("Traceback")
    (log,) = (tmp_path / "cache" / "logs").iterdir()
    assert last.startswith("error: this is a mistake of embedtrain 0.")
    assert last.endswith(f"the command `embedtrain train my.yaml` and {log}.")
    assert "\n".join(above) in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_run_keeps_the_log_of_its_own_training(capsys, monkeypatch, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "recipe.yaml").touch()
    monkeypatch.setattr(sys, "argv", ["embedtrain", "train", f"--resume={tmp_path / 'run'}"])
    assert end(raised(RuntimeError())) == 1
    assert [path.suffix for path in (tmp_path / "run").glob("embedtrain-*")] == [".log"]
    assert str(tmp_path / "run") in capsys.readouterr().err.splitlines()[-1]


def test_where_no_log_can_be_written_it_says_what_to_send(capsys, monkeypatch, tmp_path):
    (tmp_path / "cache").touch()
    monkeypatch.setattr(ending.tempfile, "gettempdir", lambda: str(tmp_path / "cache"))
    assert end(raised(RuntimeError())) == 1
    assert capsys.readouterr().err.endswith("and what stands above.\n")


def test_no_secret_is_shown_or_kept(capsys, monkeypatch, tmp_path):
    secrets = {"HF_TOKEN": "a-token-of-mine", "WANDB_API_KEY": "0123456789abcdef", "X_SECRET": "s3"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    words = ["a-token-of-mine", "0123456789abcdef", "https://me:pass@host/x", "hf_" + "a" * 30]
    monkeypatch.setattr(sys, "argv", ["embedtrain", *words])
    assert end(raised(RuntimeError(" ".join(words)))) == 1
    assert end(raised(UserError("a", "is wrong", got=" ".join(words)))) == 2
    (log,) = (tmp_path / "cache" / "logs").iterdir()
    for text in (capsys.readouterr().err, log.read_text()):
        assert not any(one in text for one in (*words[:2], "me:pass", "aaaa"))
    assert (
        redact("s3 is a name, //a:b@c a path, PATH=/x") == "s3 is a name, //a:b@c a path, PATH=/x"
    )


def test_a_rank_leaves_the_line_to_the_process_that_started_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("EMBEDTRAIN_REPORT", str(tmp_path / "report"))
    assert end(raised(MemoryError())) == 2
    assert (tmp_path / "report").read_text().startswith("memory does not suffice")
    assert capsys.readouterr().err == ""
    (tmp_path / "report").unlink()
    assert end(raised(RuntimeError())) == 1, "which is the launcher's to name"
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    "error", [EOFError("in the middle of a file"), BrokenPipeError(errno.EPIPE, "")]
)
def test_click_passes_over_no_failure(error):
    def work() -> None:
        raise error

    alone = typer.Typer()
    alone.command(cls=Command)(work)
    assert isinstance(CliRunner().invoke(alone, []).exception, Escaped)


def test_main_ends_by_what_escapes(monkeypatch):
    def stop(**_: object) -> None:
        raise UserError("a", "is wrong")

    monkeypatch.setattr("embedtrain.cli.main.app", stop)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2


def test_a_reader_that_goes_ends_it_quietly():
    command = [sys.executable, "-m", "embedtrain", "recipes", "keys"]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    )
    started.stdout.read(10)
    started.stdout.close()
    assert started.stderr.read() == b""
    started.stderr.close()
    assert started.wait() in (0, 1)


def test_a_long_word_is_searched_for_secrets_at_once_and_a_message_is_bounded():
    start = time.process_time()
    redact("x" * 200_000)
    assert time.process_time() - start < 10, "it took minutes"
    assert redact(f"{'a' * 40}://me:secret@host") == f"{'a' * 40}://***@host"
    assert len(str(UserError("x" * 10**6, "is odd"))) == 4000
