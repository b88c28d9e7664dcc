"""Checkpoints that are whole or not there: written aside, synced, renamed; the previous one kept; sealed by a digest.

A checkpoint is the zip archive that torch.save writes, and loads with torch.load(path, weights_only=True). Its comment
is a seal, the SHA-256 of every byte before it, since torch.load does not check what it reads, and the CRCs of a zip's
entries leave more than a third of its bytes (names, sizes, padding) unprotected.
"""

import hashlib
import os
from pathlib import Path
from typing import IO, Any

import torch

from runner.writing import sync, whole

NAME, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
_SEAL = b"sha256:"
_LENGTH = len(_SEAL) + hashlib.sha256().digest_size * 2  # in hexadecimal digits
_CHUNK = 2**20


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint. At every instant at least one whole checkpoint is there, if there was one."""
    with whole(folder / NAME, keep=folder / PREVIOUS) as sink:
        torch.save(state, sink.stream)
        seal(sink.file)
    sync(folder)


def seal(file: IO[bytes]) -> None:
    """Give the zip archive in `file`, which has no comment, its seal as one."""
    file.seek(-2, os.SEEK_END)  # the comment's length is the last thing in a zip without one
    file.write(_LENGTH.to_bytes(2, "little"))
    digest = _digest(file, file.tell())
    file.write(_SEAL + digest)


def check_seal(file: IO[bytes]) -> None:
    """Raises ValueError unless the file ends in a seal that fits all that comes before."""
    size = file.seek(0, os.SEEK_END) - _LENGTH
    file.seek(max(size, 0))
    found = file.read(_LENGTH)
    if size < 0 or not found.startswith(_SEAL):
        raise ValueError("it is cut off, or not a checkpoint of this version: it should end in a SHA-256")
    if found.removeprefix(_SEAL) != _digest(file, size):
        raise ValueError("it is damaged: its SHA-256 is wrong")


def _digest(file: IO[bytes], size: int) -> bytes:
    """Of the first `size` bytes; the file is left right behind them."""
    file.seek(0)
    digest, left = hashlib.sha256(), size
    while left and (chunk := file.read(min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest().encode()


def load(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest whole checkpoint, or None, and a sentence for each that was passed over."""
    complaints: list[str] = []
    for name in (NAME, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            return _read(path), complaints
        except Exception as error:
            complaints.append(f"{path} cannot be read ({str(error).split('. ')[0] or type(error).__name__})")
    return None, complaints


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        check_seal(file)
        file.seek(0)
        state = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or "step" not in state:
        raise ValueError("it holds no state of a run")
    return state
