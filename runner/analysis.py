"""Finished and unfinished runs as frames."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from runner.errors import BadInput


def load(folder: str | Path, table: str = "metrics") -> pd.DataFrame:
    """The rows of `<table>.csv` of a run, or of all runs below a folder, one after another.

    In front stand `run` (the folder's name), `status`, and the config's values that differ between the runs, under
    their dotted keys (`width`, `seed`, `optimizer.lr`).
    """
    runs = sorted(path.parent for path in Path(folder).rglob(f"{table}.csv"))
    if not runs:
        raise BadInput(f"{folder} should be a run's folder or hold some, found no {table}.csv in or below it")
    configs = [_flatten(_read(run / "meta.json").get("config", {})) for run in runs]
    keys = sorted(set().union(*configs), key=lambda key: (key.count("."), key))  # flat knobs first
    varying = [key for key in keys if len({json.dumps(config.get(key)) for config in configs}) > 1]
    frames = []
    for run, config in zip(runs, configs, strict=True):
        frame = pd.read_csv(run / f"{table}.csv")
        status = _read(run / "status.json").get("status", "unknown")
        first = {"run": run.name, "status": status, **{key: config.get(key) for key in varying}}
        named = {f"config.{key}" if key in frame.columns else key: value for key, value in first.items()}
        for position, (key, value) in enumerate(named.items()):
            frame.insert(position, key, [value] * len(frame))
        frames.append(frame)
    filled = [frame for frame in frames if len(frame)]  # one without rows yet would turn its columns into objects
    return pd.concat(filled, ignore_index=True) if filled else frames[0]


def _read(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text()) if path.exists() else {}
    assert isinstance(found, dict)
    return found


def _flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
