"""Files that are whole or not there, and errors that say which one could not be written, and why."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from runner.errors import CannotWrite

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "it would exceed the limit on the size of a file",
}


class Sink:
    """What a library writes into. It offers no more than `write`, so that every byte passes here, and keeps the
    system's error, of which the library may make another one (torch says "unexpected pos" when the disk is full)."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    @property
    def stream(self) -> IO[bytes]:
        """Itself, as libraries ask for it, which need no more of a file than it has."""
        return cast(IO[bytes], self)

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """torch calls it."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Errors of the system leave as a CannotWrite with one sentence about `path`."""
    try:
        yield
    except CannotWrite:
        raise
    except OSError as error:
        raise CannotWrite(f"{path} cannot be written: {_reason(error, path)}") from error


def _reason(error: OSError, path: Path) -> str:
    if error.errno in REASONS:
        return f"{REASONS[error.errno]}; make room and start again, a run goes on from its last checkpoint"
    if not path.parent.exists():
        return "its folder is gone, removed or renamed while it was in use"
    return error.strerror or str(error)


@contextmanager
def whole(path: Path, keep: Path | None = None, sync: bool = True) -> Iterator[Sink]:
    """Replace a file as a whole, or leave all as it was: what the block writes goes aside, to the disk (`sync`), and
    then takes the file's place. `keep`: where the file that was there before goes."""
    aside = path.with_name(f"{path.name}.tmp")
    with explained(path):
        try:
            with aside.open("w+b") as file:
                yield from _written(file)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            if keep is not None and path.exists():
                os.replace(path, keep)
            os.replace(aside, path)
        except BaseException:
            with suppress(OSError):  # half a file would take the room that the run's status needs
                aside.unlink(missing_ok=True)
            raise


def _written(file: IO[bytes]) -> Iterator[Sink]:
    sink = Sink(file)
    try:
        yield sink
    except Exception as error:
        if sink.error is not None:
            raise OSError(sink.error.errno, sink.error.strerror) from error
        raise


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file as a whole."""
    with whole(path) as sink:
        sink.write(f"{json.dumps(content, indent=2)}\n".encode())


def append(descriptor: int, block: bytes) -> None:
    """All of the block: the system may write a part at a time."""
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync(path: Path) -> None:
    """Make a file, or the renames in a folder, last through a power cut. What was taken away meanwhile needs none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        with explained(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
