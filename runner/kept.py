"""The names of the files that probes keep: of what, at which step, and of networks side by side of which replica."""

import re
from pathlib import Path
from typing import NamedTuple


class Kept(NamedTuple):
    what: str
    step: int
    replica: int = 0


def stem(what: str, step: int, replica: int | None = None) -> str:
    """`<what>-step<n>`, with `-replica<r>` where there are several."""
    return f"{what}-step{step}" + (f"-replica{replica}" if replica is not None else "")


def parsed(path: Path) -> Kept | None:
    """What `stem` was made of; None for the name of another file."""
    found = re.fullmatch(r"(.+)-step(\d+)(?:-replica(\d+))?", path.stem)
    return Kept(found[1], int(found[2]), int(found[3] or 0)) if found else None
