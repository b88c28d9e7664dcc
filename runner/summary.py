"""The table at the end of a run."""

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from runner.ending import Ended


def summarise(folder: Path, ended: Ended, console: Console, begun: bool = True) -> None:
    """Print how the run ended, its final losses, how often each measured curvature was negative, and where the files
    are. `begun`: now, and not before."""
    frame = pd.read_csv(folder / "metrics.csv")
    many = frame["replica"].nunique()
    table = Table(title=f"{ended.status} after {ended.step} steps{': ' + escape(ended.reason) if ended.reason else ''}")
    table.add_column("")
    table.add_column("value", justify="right")
    for column in ("train_loss", "train_error", "test_loss", "test_error", "grad_norm"):
        rows = frame.dropna(subset=[column]) if column.startswith("test_") else frame
        if len(rows):
            label = f"{column}, last" if many == 1 else f"{column}, last, median over {many}"
            table.add_row(label, f"{rows.groupby('replica')[column].nth(-1).median():.6g}")
    for column in [c for c in frame.columns if "_gHg" in c]:
        values = frame[column].dropna()
        if len(values):
            table.add_row(
                f"{column} < 0, share of {len(values)} {'steps' if many == 1 else 'rows'}", f"{(values < 0).mean():.1%}"
            )
    console.print(table)
    if not begun:
        console.print("nothing was left to do", highlight=False)
    if ended.status == "interrupted":
        console.print("the same command goes on from here", highlight=False)
    console.print(f"files: {folder}", soft_wrap=True, highlight=False, markup=False)
