"""Ranks as processes, with small programs in place of training."""

import signal
import threading
import time

import pytest
from launched import READY, run, stop_when_ready

from embedtrain.errors import Interrupted, UserError
from embedtrain.training.ranks.launcher import RankDied, report_failure, speaks


def test_each_rank_knows_its_number_and_where_to_meet(tmp_path):
    run(
        tmp_path,
        "names = 'RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR'\n"
        f"open('{tmp_path}/' + str(rank), 'w').write(' '.join(os.environ[n] for n in names.split()))",
    )
    assert (tmp_path / "0").read_text() == "0 0 2 127.0.0.1"
    assert (tmp_path / "1").read_text() == "1 1 2 127.0.0.1"


def test_a_killed_rank_ends_the_others_and_the_message_says_how_to_go_on(tmp_path):
    program = "print('step 7', flush=True)\n"
    program += "os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else time.sleep(60)"
    started = time.monotonic()
    message = rf"^rank 1 was killed by SIGKILL after 'step 7'; .*--resume {tmp_path}$"
    with pytest.raises(RankDied, match=message):
        run(tmp_path, program)
    assert time.monotonic() - started < 30


def test_a_crash_names_the_file_with_the_traceback(tmp_path):
    message = r"rank 1 failed with code 1 after 'AssertionError: broken'; see .*rank-1.txt"
    with pytest.raises(RankDied, match=message):
        run(tmp_path, "assert rank != 1, 'broken'")
    assert "broken" in (tmp_path / "ranks" / "rank-1.txt").read_text()


def test_the_mistake_that_a_rank_reports_is_told_once(tmp_path):
    with pytest.raises(UserError, match=r"^step 7 has a loss that is not finite$"):
        run(
            tmp_path,
            "open(report, 'w').write('step 7 has a loss that is not finite'); sys.exit(2)",
        )


def test_ranks_that_fail_because_another_one_stopped_are_no_failure(tmp_path):
    program = """
if rank == 0:
    time.sleep(0.3)
    stopped()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(0.5)
sys.exit(1)
"""
    with pytest.raises(Interrupted, match="stopped at step 3") as caught:
        run(tmp_path, program)
    assert caught.value.exit_code == 130


def test_a_signal_before_ranks_can_hear_it_is_no_failure_either(tmp_path):
    thread = threading.Thread(target=stop_when_ready, args=(tmp_path,))
    thread.start()
    with pytest.raises(Interrupted, match=rf"^stopped by SIGTERM; .*--resume {tmp_path}$"):
        run(tmp_path, READY + "time.sleep(60)")
    thread.join()


def test_sigterm_reaches_every_rank_and_their_message_comes_back(tmp_path):
    program = f"signal.signal(signal.SIGTERM, stopped)\n{READY}time.sleep(60)"
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=stop_when_ready, args=(tmp_path,))
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
