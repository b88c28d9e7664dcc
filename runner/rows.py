"""The whole rows of a CSV that a run may still be writing."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from runner.errors import BadInput

BLOCK = 1 << 22  # bytes read at once


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that a file had when it was first looked at: whatever is added later is not of this frame."""

    path: Path
    columns: tuple[str, ...]
    start: int  # in bytes, where the first row begins
    size: int
    torn: bool  # whether the last line was cut in the middle, perhaps in mid-number

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """None if there is no such file, or not yet its first line."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        with file:
            header = file.readline()
            size = file.seek(0, 2)
            file.seek(size - 1 if size else 0)
            torn = file.read(1) != b"\n"
        if not header.endswith(b"\n"):
            return None
        return cls(path, tuple(header.decode().rstrip("\r\n").split(",")), len(header), size, torn)

    def blocks(self) -> Iterator[bytes]:
        """Whole lines, some at a time, without the header and without a torn last line. Raises BadInput where a line
        has not as many cells as the header."""
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise BadInput(f"{self.path} should still be there, found: {error.strerror}") from error
        with file:
            file.seek(self.start)
            left, rest = self.size - self.start, b""
            while left > 0 and (read := file.read(min(BLOCK, left))):
                left -= len(read)
                whole, end, rest = (rest + read).rpartition(b"\n")
                if end:
                    self._check(whole)
                    yield whole + end

    def _check(self, whole: bytes) -> None:
        commas = len(self.columns) - 1
        if odd := next((line for line in whole.split(b"\n") if line.count(b",") != commas), None):
            raise BadInput(
                f"{self.path} should have {commas + 1} cells in each line, found {odd[:60].decode(errors='replace')!r}"
            )
