"""Files that several jobs may make at the same time: whole or not there at all."""

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from runner.errors import BadInput


def check_md5(path: Path, published: str, remove: Path | None = None) -> None:
    """Raises BadInput unless `path` has the published md5. `remove`: what to remove, so that it is fetched
    again, if not `path` itself."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != published:
        raise BadInput(
            f"{path} has the md5 {found}, the published file has {published}: accept a mirror or a subset in the"
            f" published layout with dataset.verify=false, or remove {remove or path}, so that it is fetched again."
        )


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new name beside `target` for a file or folder, which is renamed to `target` when the block ends well
    and removed when it does not."""
    temporary = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        yield temporary
        try:
            os.replace(temporary, target)
        except OSError:
            if not (temporary.is_dir() and target.is_dir()):  # else another job made the folder meanwhile
                raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Of several jobs that would make `target`, the others wait here until the first is done or dead.

    It only saves work: what keeps `target` whole is the rename, also on file systems without locks. Makes the
    folder if need be; raises OSError where it cannot be written to.
    """
    _make_folder(target.parent)
    with open(target.with_name(f".{target.name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another job that makes {target}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass
        yield


def _make_folder(folder: Path) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not writable(existing):
        raise PermissionError(f"{existing} cannot be written to")
    folder.mkdir(parents=True, exist_ok=True)


def writable(folder: Path) -> bool:
    """Whether files may be made in `folder`; without any write permission it is left alone by root, too."""
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK) and bool(folder.stat().st_mode & 0o222)
