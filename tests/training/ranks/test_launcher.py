"""Ranks as processes, with small programs in place of training."""

import os
import signal
import sys
import threading
import time

import pytest

from embedtrain.errors import Interrupted, UserError
from embedtrain.training.ranks.launcher import RankDied, launch, report_failure, speaks

HEAD = """
import os, signal, sys, time
rank, report = int(os.environ["RANK"]), os.environ["EMBEDTRAIN_REPORT"]
def stopped(*_):
    open(report, "w").write("stopped at step 3")
    sys.exit(130)
"""


def run(tmp_path, program, ranks=2):
    launch([sys.executable, "-c", HEAD + program], ranks, tmp_path)


def test_each_rank_knows_its_number_and_where_to_meet(tmp_path):
    run(
        tmp_path,
        "names = 'RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR'\n"
        f"open('{tmp_path}/' + str(rank), 'w').write(' '.join(os.environ[n] for n in names.split()))",
    )
    assert (tmp_path / "0").read_text() == "0 0 2 127.0.0.1"
    assert (tmp_path / "1").read_text() == "1 1 2 127.0.0.1"


def test_a_killed_rank_ends_the_others_and_the_message_says_how_to_go_on(tmp_path):
    program = "os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else time.sleep(60)"
    started = time.monotonic()
    with pytest.raises(RankDied, match=rf"rank 1 was killed by SIGKILL.*--resume {tmp_path}"):
        run(tmp_path, program)
    assert time.monotonic() - started < 30


def test_a_crash_names_the_file_with_the_traceback(tmp_path):
    with pytest.raises(RankDied, match=r"rank 1 failed with code 1; see .*rank-1.txt"):
        run(tmp_path, "assert rank != 1, 'broken'")
    assert "broken" in (tmp_path / "ranks" / "rank-1.txt").read_text()


def test_the_mistake_that_a_rank_reports_is_told_once(tmp_path):
    with pytest.raises(UserError, match=r"^step 7 has a loss that is not finite$"):
        run(
            tmp_path,
            "open(report, 'w').write('step 7 has a loss that is not finite'); sys.exit(2)",
        )


def test_sigterm_reaches_every_rank_and_their_message_comes_back(tmp_path):
    program = f"""
signal.signal(signal.SIGTERM, stopped)
open('{tmp_path}/ready' + str(rank), 'w')
time.sleep(60)
"""

    before = signal.getsignal(signal.SIGTERM)

    def stop():
        while not all((tmp_path / f"ready{rank}").exists() for rank in range(2)):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Interrupted, match="stopped at step 3"):
        run(tmp_path, program)
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_rank_reports_to_whoever_started_it(tmp_path, monkeypatch):
    assert not report_failure("lost")
    assert speaks()
    monkeypatch.setenv("EMBEDTRAIN_REPORT", str(tmp_path / "report"))
    assert report_failure("found")
    assert not speaks()
    assert (tmp_path / "report").read_text() == "found"
