"""How a command ends when something went wrong: one line for the user, or a traceback where the mistake is ours."""

import os
import shlex
import sys
import tempfile
import time
import traceback
from pathlib import Path

from embedtrain.errors import (
    INTERRUPTED,
    REFUSED,
    Interrupted,
    RankDied,
    Refused,
    UserError,
    one_line,
)
from embedtrain.outside import explain
from embedtrain.progress import is_verbose
from embedtrain.redaction import redact

DEBUG = "EMBEDTRAIN_DEBUG"
"""Environment variable: 1 shows the traceback of everything, of the user's mistakes too."""


def end(error: BaseException) -> int:
    """Tell the user, or the process that started this rank, how it ended.

    Returns:
        The exit code: 2 for the user's mistake, 3 where nothing is good enough to ship, that of the signal that
        stopped it, 1 anything else.
    """
    if isinstance(error, KeyboardInterrupt | Interrupted):
        message = str(error) or "interrupted"
        code = error.exit_code if isinstance(error, Interrupted) else INTERRUPTED
        return _tell(error, message, message, code)
    if isinstance(error, Refused):
        return _tell(error, str(error), "", REFUSED)
    if isinstance(error, RankDied):
        return _tell(error, f"error: {error}", "", 1)
    told = _in_words(error)
    if told is not None:
        return _tell(error, f"error: {told}", str(told), 2)
    return _own_mistake(error)


def _in_words(error: BaseException) -> UserError | None:
    """Return what the user can mend; None where the mistake is ours."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MemoryError):
        cure = "Give smaller batches or shorter texts, or more memory"
        return UserError("memory", "does not suffice on this machine", cure=cure)
    return explain(error)


def _tell(error: BaseException, line: str, last_words: str, code: int) -> int:
    from embedtrain.training.ranks.launcher import report_failure

    if is_verbose() or os.environ.get(DEBUG) == "1":
        _write(_traceback(error))
    if not (last_words and report_failure(redact(last_words))):
        _write(f"{redact(line)}\n")
    return code


def _own_mistake(error: BaseException) -> int:
    from embedtrain import __version__

    command = redact(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    found = _traceback(error)
    _write(found)
    head = f"embedtrain {__version__}, Python {sys.version}\n{command}\n\n"
    log = _keep(head + found)
    report = f"this is a mistake of embedtrain {__version__}, not yours. Report it with the command"
    place = f" and {log}" if log else ", and what stands above"
    _write(f"error: {report} `{one_line(command)}`{place}.\n")
    return 1


def _traceback(error: BaseException) -> str:
    return redact("".join(traceback.format_exception(error)))


def _write(text: str) -> None:
    """Write to standard error, whatever its encoding can say; a reader that has gone is no further mistake."""
    encoding = sys.stderr.encoding or "utf-8"
    try:
        sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def _keep(text: str) -> Path | None:
    """Write a log that only the user may read: into the run's folder, the cache, or where there is room at all."""
    from embedtrain.files import default_cache

    name = f"embedtrain-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (_run_folder(), default_cache() / "logs", Path(tempfile.gettempdir())):
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(file, "w", encoding="utf-8", errors="backslashreplace") as log:
                log.write(text)
        except OSError:
            continue
        return folder / name
    return None


def _run_folder() -> Path | None:
    """Return the folder of the run that the command was training, as far as its words name it."""
    from embedtrain.files import is_run

    _, command, *words = [*sys.argv, "", ""]
    named = [Path(word.rpartition("=")[2]) for word in words if command == "train" and word]
    return next((path for path in named if is_run(path)), None)
