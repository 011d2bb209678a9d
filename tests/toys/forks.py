"""Work in a forked process: as separate as a started one, without the seconds that importing torch takes."""

import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import NoReturn

import psutil

PATIENCE = 240  # seconds


def fork(
    work: Callable[[], object],
    *,
    given: str = "",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> CompletedProcess[str]:
    """Run ``work`` in a child that reads ``given`` and whose output and exit code are returned."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as source,
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
    ):
        source.write(given)
        source.seek(0)
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            for number, file in enumerate((source, out, errors)):
                os.dup2(file.fileno(), number)
            _work_and_exit(work, cwd, environment or {})
        code = _wait(child, patience)
        for file in (out, errors):
            file.seek(0)
        return CompletedProcess([], code, out.read(), errors.read())


def _work_and_exit(
    work: Callable[[], object], cwd: Path | None, environment: Mapping[str, str]
) -> NoReturn:
    code = 1
    try:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        warnings.simplefilter("ignore")  # as a process that pytest has not touched
        signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # shells may start pytest deaf to it
        os.environ |= environment
        if cwd is not None:
            os.chdir(cwd)
        work()
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:  # whatever happens, a late signal too, the child must not go on as the tests
            with suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
        finally:
            os._exit(code)


def _wait(child: int, patience: float) -> int:
    deadline = time.monotonic() + patience
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            # What it has started goes as well: it would hold the folders that it works in.
            started = psutil.Process(child).children(recursive=True)
            for process in started:
                process.kill()
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            psutil.wait_procs(started, timeout=5)
            raise TimeoutError("the child does not end")
        time.sleep(0.01)


def embedtrain(
    arguments: Sequence[object],
    *,
    before: Callable[[], object] = lambda: None,
    input: str = "",
    cwd: Path | None = None,
) -> CompletedProcess[str]:
    """Run the command line in a fork; ``before`` may spoil something there."""
    from embedtrain.cli.main import main

    def work() -> None:
        before()
        sys.argv = ["embedtrain", *map(str, arguments)]
        main()

    return fork(work, given=input, cwd=cwd)


def signal_on_call(owner: object, name: str, call: int, number: int = signal.SIGKILL) -> None:
    """Let this process be sent a signal when ``owner.name`` is called for the ``call``-th time."""
    original, calls = getattr(owner, name), []

    def counted(*arguments: object, **settings: object) -> object:
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return original(*arguments, **settings)

    setattr(owner, name, counted)


def reload_in_a_fork(folder: Path, result: Path, probes: str) -> CompletedProcess[str]:
    """Stand for ``embedtrain.release.export.reload_elsewhere``, which starts a process."""
    import sentence_transformers  # noqa: F401 - once here, so not again in each fork

    from embedtrain.release.reload import main

    return fork(lambda: main(str(folder), str(result)), given=probes)
