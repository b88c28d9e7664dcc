"""Folders as runs leave them, made by hand."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def make_run(
    folder: Path,
    config: Mapping[str, Any],
    metrics: str | None = "step,replica,train_loss\n0,0,0.5\n1,0,0.25\n",
    status: str | None = "finished",
    replicas: Mapping[int, str] | None = None,
    **tables: str,
) -> Path:
    """`metrics` and `tables`: the text of their CSV; None: there is none."""
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"config": config, "hash": "0"}))
    if status is not None:
        ends = [
            {"replica": replica, "status": how, "step": 1, "reason": ""} for replica, how in (replicas or {}).items()
        ]
        content = {"status": status, "reason": "", "step": 1, **({"replicas": ends} if ends else {})}
        (folder / "status.json").write_text(json.dumps(content))
    for name, text in {**tables, **({} if metrics is None else {"metrics": metrics})}.items():
        (folder / f"{name}.csv").write_text(text)
    return folder
