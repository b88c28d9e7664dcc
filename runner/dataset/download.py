"""Published files, fetched where they are missing."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from runner.dataset.files import alone, replacing
from runner.dataset.progress import progress
from runner.errors import BadInput

_CHUNK = 2**18
_LIMIT = 2**30  # bytes; the largest published file has a quarter of that


@dataclass(frozen=True)
class Published:
    """A file as its authors publish it: its `path` below data_root, its `url`, and the `md5` of its bytes."""

    path: str
    url: str
    md5: str


def provide(files: Sequence[Published], root: Path, *, download: bool) -> None:
    """Fetches those of `files` that are not below `root`.

    Each is written under a temporary name and renamed once it is whole and its md5 is the published one.
    Raises BadInput, which says how to get the files by hand, where that fails or `download` is false.
    """
    missing = [file for file in files if not (root / file.path).exists()]
    if missing and not download:
        raise BadInput(_wanted(missing, root, "dataset.download is false"))
    for file in missing:
        try:
            _fetch(file, root / file.path)
        except (OSError, HTTPException, ValueError) as error:
            raise BadInput(_wanted(missing, root, f"{file.url} could not be fetched: {error}")) from error


def _fetch(file: Published, target: Path) -> None:
    with alone(target):
        if not target.exists():  # else another job was faster
            with replacing(target) as temporary:
                _download(file, temporary)


def _download(file: Published, target: Path) -> None:
    digest, received = hashlib.md5(usedforsecurity=False), 0
    request = Request(file.url, headers={"User-Agent": "runner"})
    with urlopen(request, timeout=60) as response, open(target, "wb") as out:
        length = int(response.headers.get("Content-Length") or 0)
        with progress(f"downloading {Path(file.path).name}", length or None, "bytes") as advance:
            while chunk := response.read(_CHUNK):
                received += len(chunk)
                if received > _LIMIT:
                    raise OSError(f"more than {_LIMIT} bytes arrived")
                digest.update(chunk)
                out.write(chunk)
                advance(len(chunk))
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != file.md5:
        arrived = f"{received} of {length}" if length else f"{received}"
        raise OSError(f"{arrived} bytes arrived, with the md5 {digest.hexdigest()} instead of {file.md5}")


def _wanted(missing: Sequence[Published], root: Path, reason: str) -> str:
    names = ", ".join(file.path for file in missing)
    lines = [f"  curl --create-dirs -o {root / f.path} {f.url}  # md5 {f.md5}" for f in missing]
    return "\n".join(
        [
            f"Missing below data_root={root}: {names} ({reason}). Set data_root to a folder that has what is"
            " missing, or get it where there is a network:",
            *lines,
        ]
    )
