"""How the scripts beside the package end: like the command line, with one sentence about what a user can mend."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from runner.errors import BadInput


@contextmanager
def sentences(name: str) -> Iterator[None]:
    """Refused input ends the script `name` with the code 2, and a file that cannot be read or written with 1."""
    try:
        yield
    except (BadInput, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, BadInput) else 1) from error
