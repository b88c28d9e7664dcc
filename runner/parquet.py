"""The frame of a sweep as a Parquet file: each column of one type, and null where nothing was measured.

Needs pyarrow, of the extra [plot].
"""

from collections.abc import Iterable
from typing import IO, Any

import pyarrow as pa
from pyarrow import csv
from pyarrow.parquet import ParquetWriter

from runner.errors import BadInput
from runner.rows import Rows
from runner.runs import Run, Sweep

CELLS = 1 << 22  # of a row group: many short runs make one, and a run's blocks can make several

Numbered = tuple[int, Run, Rows]  # the number is the run's in the sweep


def schema(found: Sweep, runs: Iterable[Numbered]) -> pa.Schema:
    """The types of all columns. All rows are read for them: the first cell of a column may stand in the last run, or
    be the only whole number."""
    types = dict.fromkeys(found.columns, pa.null())
    for _, _, rows in runs:
        for block in rows.blocks():
            for field in _parsed(block, rows).schema:
                types[field.name] = _common(types[field.name], field.type)
    front = [pa.string(), pa.string(), *(pa.array(values).type for values in found.config.values())]
    names = [*found.front, *found.columns]
    known = [pa.float64() if kind == pa.null() else kind for kind in [*front, *types.values()]]
    return pa.schema(list(zip(names, known, strict=True)))


def write(found: Sweep, schema: pa.Schema, runs: Iterable[Numbered], file: IO[bytes]) -> int:
    """Write the rows, and return how many there are."""
    waiting: list[pa.Table] = []
    count = unwritten = 0
    types = {column: schema.field(column).type for column in found.columns}
    with ParquetWriter(file, schema) as writer:
        for number, run, rows in runs:
            own = [run.name, None, *(values[number] for values in found.config.values())]
            for block in rows.blocks():
                body = _parsed(block, rows, column_types=types, include_columns=types, include_missing_columns=True)
                front = [pa.repeat(pa.scalar(v, f.type), len(body)) for v, f in zip(own, schema, strict=False)]
                front[1] = pa.array(_statuses(run, body), pa.string())
                waiting.append(pa.Table.from_arrays([*front, *body.columns], schema=schema))
                count += len(body)
                unwritten += len(body)
                if unwritten * len(schema) >= CELLS:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting, unwritten = [], 0
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return count


def _parsed(block: bytes, rows: Rows, **convert: Any) -> pa.Table:
    """Empty is null; nan and inf are numbers. Raises BadInput where a column is not of the type that it was."""
    try:
        return csv.read_csv(
            pa.BufferReader(block),
            read_options=csv.ReadOptions(column_names=rows.columns),
            convert_options=csv.ConvertOptions(null_values=[""], strings_can_be_null=True, **convert),
        )
    except pa.ArrowInvalid as error:
        raise BadInput(f"{rows.path} should stay as it is while it is read, found another text: {error}") from error


def _statuses(run: Run, body: pa.Table) -> list[str]:
    return run.statuses(body["replica"].to_pylist()) if run.others else [run.status] * len(body)


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """What holds the values of both: whole numbers, numbers, truth values, or else text."""
    kinds = {one, other} - {pa.null()}
    if kinds <= {pa.int64()} or kinds <= {pa.bool_()} or not kinds:
        return kinds.pop() if kinds else pa.null()
    return pa.float64() if kinds <= {pa.int64(), pa.float64()} else pa.string()
