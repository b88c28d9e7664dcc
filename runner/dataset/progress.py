"""A progress bar on a terminal, one plain line elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


@contextmanager
def progress(label: str, total: int | None, unit: Literal["bytes", "items"]) -> Iterator[Callable[[int], None]]:
    """Shows on standard error what is being done; the block is given the function that advances the bar by n
    units. `total` None: unknown."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console.print(label, markup=False, highlight=False, soft_wrap=True)
        yield lambda n: None
        return
    count: ProgressColumn = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=total)
        yield lambda n: bar.advance(task, n)
