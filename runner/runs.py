"""The runs below a folder: what their configs differ in, how far they are, and the order in which they stand."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from sys import intern
from typing import Any

from runner.errors import BadInput
from runner.rows import Rows

Value = float | int | str | None  # of a column; bool is an int

# Where and how a run computes, and what it is called.
AROUND = ("device", "data_root", "checkpoint_minutes", "logger", "sweep", "experiment", "scale", "name")
# And what its groups have taken over under keys of their own, and what says `width` again.
ASIDE = (*AROUND, "recipe", "arch.width")


def aside(key: str, keys: Sequence[str] = ASIDE) -> bool:
    """Whether a config's dotted key is one of these, or below one: by default those that say nothing of their own of
    what a run computes."""
    return f"{key}.".startswith(tuple(f"{one}." for one in keys))


@dataclass(frozen=True, slots=True)
class Run:
    """A run's folder. Of its config only what sets it apart is kept: there may be thousands."""

    path: Path
    name: str
    differs: dict[str, Any]  # by dotted key, from the config of the first run that was found; None: has no such key
    status: str
    others: dict[int, str]  # the status of the replicas that ended otherwise
    rows: Rows | None

    def statuses(self, replicas: Iterable[int]) -> list[str]:
        return [self.others.get(replica, self.status) for replica in replicas]


@dataclass(frozen=True)
class Sweep:
    """Runs in the order of their varying values, and what stands in a frame of them."""

    runs: tuple[Run, ...]
    config: dict[str, list[Value]]  # the config's columns, a value for each run
    columns: tuple[str, ...]  # of the table, of all runs together
    strays: tuple[Path, ...]  # folders without a run

    @property
    def front(self) -> tuple[str, ...]:
        """The columns in front of the table's: `run`, `status`, and the config's; none has a name twice."""
        taken = {*self.columns, "run", "status"}
        return ("run", "status", *(f"config.{key}" if key in taken else key for key in self.config))


def sweep(folder: str | Path, table: str = "metrics", config: Sequence[str] = ()) -> Sweep:
    """The run in a folder, or all runs below it, and their `<table>.csv`.

    The config's columns are the values that differ between the runs, and those of the dotted keys `config`. Raises
    BadInput if there is no run, none with the table, or none with such a key.
    """
    root = Path(os.path.abspath(folder))  # so that "." has a name
    if not root.is_dir():
        found_there = "a file" if root.exists() else "no such folder"
        raise BadInput(f"{folder} should be a run's folder or hold some, found {found_there}")
    found, strays = _find(root)
    first: dict[str, Any] = {}
    keys: dict[str, None] = {}  # a set in order
    runs = []
    for path in found:
        flat = flatten(read_json(path / "meta.json")["config"])
        first = first or flat
        keys |= dict.fromkeys(flat)
        differs = {key: flat.get(key) for key in (first | flat) if flat.get(key) != first.get(key)}
        runs.append(_run(path, differs, table))
    if not runs:
        raise BadInput(f"{folder} should be a run's folder or hold some, found no meta.json of a run in or below it")
    if not any(run.rows for run in runs):
        raise BadInput(f"the {len(runs)} runs in {folder} should have {table}.csv, found {_tables(found)}")
    if unknown := [key for key in config if key not in keys]:
        raise BadInput(f"{unknown[0]} should be a dotted key of a run's config (optimizer.lr), found none in {folder}")
    differing = {key for run in runs for key in run.differs if not aside(key)}
    shown = [key for key in keys if key in differing or key in config]
    runs.sort(key=lambda run: [*(_order(run.differs.get(key, first.get(key))) for key in shown), _order(run.name)])
    values = {key: _uniform([run.differs.get(key, first.get(key)) for run in runs]) for key in shown}
    columns = dict.fromkeys(column for run in runs if run.rows for column in run.rows.columns)
    return Sweep(_named_apart(runs, root), values, tuple(columns), tuple(strays))


def _find(folder: Path) -> tuple[list[Path], list[Path]]:
    """The runs' folders in or below a folder, and the outermost folders that hold none."""
    if isinstance(read_json(folder / "meta.json").get("config"), dict):
        return [folder], []
    runs, strays = [], []
    with os.scandir(folder) as entries:
        below = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    for name in below:
        its_runs, its_strays = _find(folder / name)
        runs += its_runs
        strays += its_strays if its_runs else [folder / name]
    return runs, strays


def _run(path: Path, differs: dict[str, Any], table: str) -> Run:
    """Its status is read before its rows: a run that ends in between has more of them than its status promises."""
    content = read_json(path / "status.json")
    rows = Rows.of(path / f"{table}.csv")
    status = intern(content.get("status", "unknown"))
    ends = content.get("replicas", ()) if rows and "replica" in rows.columns else ()
    others = {one["replica"]: intern(one["status"]) for one in ends if one["status"] != status}
    return Run(path, path.name, differs, status, others, rows)


def _named_apart(runs: Sequence[Run], root: Path) -> tuple[Run, ...]:
    """Folders of one name, in a sweep and in a copy of it, are told apart by their paths."""
    often = Counter(run.name for run in runs)
    return tuple(
        replace(run, name=run.path.relative_to(root).as_posix()) if often[run.name] > 1 else run for run in runs
    )


def _tables(runs: Sequence[Path]) -> str:
    names = {path.name for run in runs for path in run.glob("*.csv") if path.stat().st_size}
    return ", ".join(sorted(names)) or "no table at all"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one if there is none in the file, or no file."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _uniform(values: list[Any]) -> list[Value]:
    """Numbers, or truth values, as they are; everything else, and what is mixed, as text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or kinds == {bool}:
        return values
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]


def _order(value: Any) -> tuple[Any, ...]:
    """A key to sort by: nothing, then numbers, then text, in which `mlp2` stands before `mlp10`."""
    if value is None:
        return (0,)
    if isinstance(value, int | float):
        return (1, value)
    text = value if isinstance(value, str) else json.dumps(value)
    return (2, [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)])
