"""Tensors that are costly to make, kept on disk and memory-mapped from then on."""

import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from runner.dataset.files import alone, replacing, writable
from runner.errors import BadInput

Tensors = dict[str, Tensor]
_SMALL = 2**20  # bytes of what is not a tensor; it takes a thousand


def cached(name: str, root: Path, fingerprint: str, build: Callable[[], Tensors]) -> Tensors:
    """What `build` returned for this `fingerprint`, when it was last called.

    The file lies in `root` where that can be written to, else in the user's cache folder. One that is damaged
    or of another fingerprint is replaced; of several jobs that start at once, one builds and the others wait.
    The tensors are views of the file (changing them does not change it).
    """
    below_root, of_user = root / f"{name}.cache.pt", _user_cache() / f"{name}-{_digest(root)}.cache.pt"
    for path in (below_root, of_user):
        if found := _load(path, fingerprint):
            return found
    path = below_root if writable(root) else of_user
    try:
        with alone(path):
            if not (found := _load(path, fingerprint)):  # else another job was faster
                built = build()
                _save(path, fingerprint, built)
                found = _load(path, fingerprint) or built
            return found
    except OSError as error:
        raise BadInput(
            f"The cache {path} cannot be made: {error}. Make room there, or let XDG_CACHE_HOME name another folder."
        ) from error


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "runner"


def _digest(root: Path) -> str:
    return hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]


def _save(path: Path, fingerprint: str, tensors: Tensors) -> None:
    content = {"fingerprint": fingerprint, "tensors": tensors, "sums": _checksums(tensors)}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def _load(path: Path, fingerprint: str) -> Tensors | None:
    """The tensors in `path`; None if there is no such file, or it is damaged, or of another fingerprint."""
    try:
        _check_entries(path)
        content = torch.load(path, mmap=True, weights_only=True)
        if content["fingerprint"] != fingerprint:
            return None
        tensors: Tensors = content["tensors"]
        intact = content["sums"] == _checksums(tensors)
    except Exception:  # a damaged file can raise anything; it will be written anew
        return None
    return tensors if intact else None


def _check_entries(path: Path) -> None:
    """Raises where a checksum of the zip is wrong that torch.load does not look at: those of all but the tensors' own
    bytes, which take long to read and have sums of their own."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if "/data/" not in entry.filename:
                if entry.file_size > _SMALL:
                    raise zipfile.BadZipFile(f"{entry.filename} should be small")
                archive.read(entry)


def _checksums(tensors: Tensors) -> dict[str, int]:
    return {key: _checksum(tensor) for key, tensor in tensors.items()}


def _checksum(tensor: Tensor) -> int:
    """The sum of all bytes, eight at a time: finds cut and zeroed blocks as fast as memory can be read."""
    data = tensor.contiguous().flatten().view(torch.uint8)
    whole = len(data) // 8 * 8
    return int(data[:whole].view(torch.int64).sum()) + int(data[whole:].sum())
