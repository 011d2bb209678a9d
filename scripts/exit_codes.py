"""How a script ends: with one line for what its user can mend, as the command line does."""

import logging
import sys
from collections.abc import Callable

from embedtrain.errors import INTERRUPTED, Interrupted, UserError


def run_main(main: Callable[[], int | None]) -> None:
    """Run a script and exit: its own code, 2 the user's mistake, that of the signal that stopped it."""
    # bitsandbytes 0.50 misses an optional package as soon as peft imports it, four bits or not.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (Interrupted, KeyboardInterrupt) as interruption:
        print(str(interruption) or "interrupted", file=sys.stderr)
        code = interruption.exit_code if isinstance(interruption, Interrupted) else INTERRUPTED
        sys.exit(code)
