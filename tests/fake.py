"""Sweeps as their folders would look, from frames made by hand."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from make_runs import make_run

Job = tuple[Mapping[str, Any], Mapping[str, pd.DataFrame]]


def fake_sweep(folder: Path, experiment: str, jobs: Iterable[Job]) -> Path:
    """A run for each job: the config's values by dotted key (`width` and `seed` are 1 and 0 unless given), and its
    tables by name (`metrics`, `epochs`, `hessian`, …), whose column `replica` is 0 unless given."""
    for number, (values, tables) in enumerate(jobs):
        config: dict[str, Any] = {"experiment": experiment, "scale": "small", "width": 1.0, "seed": 0}
        for key, value in values.items():
            *above, last = key.split(".")
            node = config
            for name in above:
                node = node.setdefault(name, {})
            node[last] = value
        texts = {name: table.to_csv(index=False) for name, table in map(_with_replica, tables.items())}
        make_run(folder / f"run{number}", config, **texts)
    return folder


def _with_replica(named: tuple[str, pd.DataFrame]) -> tuple[str, pd.DataFrame]:
    name, table = named
    return name, table if "replica" in table else table.assign(replica=0)
