"""One table of all runs of a sweep: a row for each row of their metrics.csv, with what sets the runs apart in front.

python scripts/collect.py outputs/fig1
python scripts/collect.py outputs/fig1 --table epochs --out fig1.parquet --config optimizer.lr

The columns are `run` (the folder's name), `status` (running, interrupted, finished, diverged or failed; of the
replica, where the run knows it), the config's values that differ between the runs, by which the runs are in order, and
those of the table, of all runs together: a cell is empty where it was not measured. A CSV keeps every number's digits;
in Parquet (extra [plot]) a column has one type, and what was not measured (null) differs from what is not finite. Runs
may still be going on, and there may be any number of them: they are read one after another.
"""

import argparse
import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import track

from runner.errors import BadInput
from runner.rows import Rows
from runner.runs import Run, Sweep, sweep
from runner.script import sentences
from runner.writing import explained, whole


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a sweep; or any other that holds runs, or a run's")
    parser.add_argument("--out", type=Path, help="*.csv or *.parquet; default: <folder>-<table>.csv beside the folder")
    parser.add_argument("--table", default="metrics", help="another of the runs' tables: epochs, hessian, … (metrics)")
    parser.add_argument("--config", nargs="+", default=(), metavar="KEY", help="values to show even if all are equal")
    return parser.parse_args()


def target(options: argparse.Namespace) -> Path:
    folder = Path(os.path.abspath(options.folder))
    out: Path = options.out or folder.with_name(f"{folder.name}-{options.table}.csv")
    if out.suffix not in (".csv", ".parquet"):
        raise BadInput(f"--out should end in .csv or .parquet, found {out}")
    if (out.parent / "meta.json").exists():
        raise BadInput(f"--out should lie outside of the runs' folders, found {out}")
    if out.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise BadInput("--out *.parquet needs pyarrow (extra [plot]), found none; *.csv does not") from error
    return out


def each(found: Sweep, text: str) -> Iterator[tuple[int, Run, Rows]]:
    """The runs that have the table, with their numbers."""
    console = Console(stderr=True)
    for number, run in enumerate(track(found.runs, text, console=console, disable=not console.is_terminal)):
        if run.rows is not None:
            yield number, run, run.rows


# ---- CSV: the runs' own text


def line(cells: Iterable[Any]) -> bytes:
    """Cells of a CSV, without an end of line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue().encode()


def aligned(block: bytes, columns: Sequence[str], wanted: Sequence[str]) -> bytes:
    """The rows with the wanted columns; those that they have not are empty."""
    if tuple(columns) == tuple(wanted):
        return block
    at = {column: index for index, column in enumerate(columns)}
    pick = itemgetter(*(at.get(column, len(columns)) for column in wanted))
    return b"".join(b",".join(pick([*row.split(b","), b""])) + b"\n" for row in block.splitlines())


def fronted(block: bytes, run: Run, fronts: Mapping[str, bytes], replica: int) -> bytes:
    """The rows, before each what belongs to its status. `replica`: the number of that column."""
    if not run.others:
        front = fronts[run.status]
        return front + block[:-1].replace(b"\n", b"\n" + front) + b"\n"
    rows = block.splitlines(keepends=True)
    statuses = run.statuses(int(row.split(b",", replica + 1)[replica]) for row in rows)
    return b"".join(fronts[status] + row for status, row in zip(statuses, rows, strict=True))


def write_csv(found: Sweep, file: IO[bytes]) -> int:
    """The number of rows."""
    count = 0
    replica = found.columns.index("replica") if "replica" in found.columns else 0
    file.write(line([*found.front, *found.columns]) + b"\n")
    for number, run, rows in each(found, "writing"):
        own = [values[number] for values in found.config.values()]
        fronts = {status: line([run.name, status, *own, ""]) for status in (run.status, *run.others.values())}
        for block in rows.blocks():
            file.write(fronted(aligned(block, rows.columns, found.columns), run, fronts, replica))
            count += block.count(b"\n")
    return count


# ---- Parquet: one type for each column


def write_parquet(found: Sweep, file: IO[bytes]) -> int:
    """The number of rows."""
    from runner import parquet

    schema = parquet.schema(found, each(found, "reading types"))
    return parquet.write(found, schema, each(found, "writing"), file)


# ---- what is said of it


def counted(runs: Iterable[Run]) -> str:
    """`3 finished, 1 failed`"""
    return ", ".join(f"{count} {status}" for status, count in Counter(run.status for run in runs).most_common())


def summary(found: Sweep, table: str, rows: int) -> Iterator[str]:
    yield f"{len(found.runs)} runs ({counted(found.runs)}), {rows} rows"
    if without := [run for run in found.runs if run.rows is None]:
        yield f"without {table}.csv: {counted(without)} ({some([run.name for run in without])})"
    if torn := [run.name for run in found.runs if run.rows and run.rows.torn]:
        yield f"last line cut in the middle and left out: {some(torn)}"
    if found.strays:
        yield f"skipped, no runs: {some([path.name for path in found.strays])}"


def some(names: Sequence[str]) -> str:
    return ", ".join([*names[:3], *([f"and {len(names) - 3} more"] if len(names) > 3 else [])])


def main() -> None:
    options = arguments()
    with sentences("collect"):
        out = target(options)
        found = sweep(options.folder, options.table, options.config)
        with explained(out):
            out.parent.mkdir(parents=True, exist_ok=True)
        with whole(out) as sink:
            rows = (write_csv if out.suffix == ".csv" else write_parquet)(found, sink.file)
    for said in summary(found, options.table, rows):
        print(f"collect: {said}", file=sys.stderr)
    print(out)


if __name__ == "__main__":
    main()
