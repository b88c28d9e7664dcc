"""Finished and unfinished runs as frames."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pandas as pd

from runner.rows import Rows
from runner.runs import Run, Value, sweep


def load(folder: str | Path, table: str = "metrics", config: Sequence[str] = ()) -> pd.DataFrame:
    """The rows of `<table>.csv` of a run, or of all runs below a folder, one after another.

    In front stand `run` (the folder's name), `status` (the replica's, where the run knows it), and the config's values
    that differ between the runs, under their dotted keys (`width`, `seed`, `optimizer.lr`), by which the runs are in
    order; `config` names others. `scripts/collect.py` writes the same frame to a file without holding it in memory.
    """
    found = sweep(folder, table, config)
    frames = [pd.DataFrame() if run.rows is None else _frame(run.rows) for run in found.runs]
    shown = [number for number, rows in enumerate(frames) if len(rows)]
    values: list[list[Value]] = [[run.name for run in found.runs], [""] * len(frames), *found.config.values()]
    front = {name: [column[number] for number in shown] for name, column in zip(found.front, values, strict=True)}
    runs = pd.DataFrame(front).fillna(float("nan")).infer_objects()  # as in other columns, NaN instead of None
    jobs = runs.loc[runs.index.repeat([len(frames[number]) for number in shown])].reset_index(drop=True)
    jobs["status"] = [status for number in shown for status in _statuses(found.runs[number], frames[number])]
    body = pd.concat([frames[number] for number in shown] or frames, ignore_index=True)
    return pd.concat([jobs, body.reindex(columns=list(found.columns))], axis=1)


def _statuses(run: Run, rows: pd.DataFrame) -> list[str]:
    return run.statuses(rows["replica"]) if run.others else [run.status] * len(rows)


def _frame(rows: Rows) -> pd.DataFrame:
    header = ",".join(rows.columns) + "\n"
    return pd.read_csv(BytesIO(header.encode() + b"".join(rows.blocks())))
