"""What every command passes through: its paths are looked at, and no failure is taken for the end of input."""

import errno
import os
import stat
import sys
from typing import Any

from typer.core import TyperCommand

from embedtrain.errors import UserError
from embedtrain.outside import told

PATHS = frozenset(
    (
        *(
            "answers",
            "base",
            "calibrate",
            "sample",
            "baseline",
            "corpus",
            "data",
            "documents",
            "first",
            "guard",
            "like",
            "mined",
            "model",
            "models",
            "output",
            "pairs",
        ),
        *(
            "paths",
            "plot",
            "probabilities",
            "prompts",
            "queries",
            "recipe",
            "rerank",
            "reranker",
            "results",
            "resume",
            "runs",
            "source",
            "sources",
        ),
        *("save_runs", "teacher", "texts", "token_file", "unlike", "with_"),
    )
)
"""Parameters that name a file or folder, or may do so: of a model, a recipe or data."""
LATER = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
"""Whether these matter is known to those that read or write: a model's Hub id is no file."""


class Escaped(RuntimeError):  # noqa: N818 - names what happened
    """Wraps an error that click would take for the end of input or of a pipe, and pass over."""


class Command(TyperCommand):
    """A command whose paths can be files or folders."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own class
        """Read the words behind the command.

        Raises:
            UserError: If a path is empty, no name of a file, too long, or that of a pipe or device.
        """
        if not ctx.resilient_parsing:  # which a shell does that completes a word
            values, _, _ = self.make_parser(ctx).parse_args(args=list(args))
            for one in self.params:
                given = values.get(one.name) if one.name in PATHS else None
                flag = one.name.upper() if one.param_type_name == "argument" else one.opts[0]
                listed = given if isinstance(given, list | tuple) else [given]
                for path in (word for word in listed if isinstance(word, str)):
                    if one.name != "recipe" or "=" not in path:
                        check_path(flag, path)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's own class
        """Run the command.

        Raises:
            Escaped: In the place of errors that would end it without a word.
        """
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise Escaped("input ended in the middle") from error
        except BrokenPipeError as error:
            if _is_read():
                raise Escaped("another process ended in the middle") from error
            raise


def check_path(flag: str, path: str) -> None:
    """Refuse what is neither file nor folder and cannot become one.

    Raises:
        UserError: If it is so.
    """
    if not path:
        raise UserError(flag, "is empty", cure="Name a file or folder")
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - Path("") is another path
    except ValueError:  # NUL, half of a surrogate pair
        raise UserError(flag, "is no name of a file", got=path, cure="Correct it") from None
    except OSError as error:
        if error.errno in LATER:
            return
        raise told(path, error, "opened", "Check the path") from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        cure = "Name a file or folder"
        raise UserError(flag, "is a pipe or a device", got=path, cure=cure)


def _is_read() -> bool:
    """Whether somebody still reads what this process prints."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return False
    return True
