"""Archives, unpacked whole or not at all."""

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from runner.dataset.files import alone, replacing
from runner.errors import BadInput

LIMIT = 2**30  # bytes that an archive may unpack to; the largest published one needs a fifth of that
HEADERS = 2**16  # bytes of what describes an entry, which is held in memory; the published ones need 512
ENTRIES = 1000  # files and folders; the published archives have up to 10


def unpack(archive: Path, target: Path) -> None:
    """Unpacks a .tar.gz whose files all lie in one folder named like `target` to `target`, unless that is
    there.

    Raises BadInput for entries that are neither files nor folders or would leave the folder, for archives
    that hold more than `LIMIT` bytes or `ENTRIES`, and for damaged ones.
    """
    try:
        with alone(target):
            if not target.exists():  # else another job was faster
                with replacing(target) as temporary:
                    _unpack(archive, target.name, temporary)
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise BadInput(
            f"{archive} cannot be unpacked to {target}: {error}. Remove it, so that it is fetched again, or"
            " unpack a good one there by hand."
        ) from error


def _unpack(archive: Path, folder: str, target: Path) -> None:
    target.mkdir()
    with _Bounded(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for number, member in enumerate(tar):
            if number == ENTRIES:
                raise tarfile.TarError(f"it holds more than {ENTRIES} files and folders")
            path = target / _inside(member.name, folder)
            stream.allow(0 if member.isdir() else member.size)
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            content = tar.extractfile(member) if member.isreg() and not member.issparse() else None
            if content is None:
                raise tarfile.TarError(f"{member.name} is neither a file nor a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "xb") as out:
                shutil.copyfileobj(content, out)


def _inside(name: str, folder: str) -> str:
    """The path below `folder` that the entry `name` stands for."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.parts[:1] != (folder,):
        raise tarfile.TarError(f"its entry {name!r} does not lie in the folder {folder}")
    return str(PurePosixPath(*path.parts[1:]))


class _Bounded(gzip.GzipFile):
    """Refuses to go on for ever: whatever is unpacked, skipped or parsed passes through here."""

    _allowed = HEADERS

    def allow(self, size: int) -> None:
        """The coming entry of this size may be read, and what describes the one after it."""
        self._allowed = self.tell() + size + HEADERS

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.tell() > LIMIT:
            raise tarfile.TarError(f"it holds more than {LIMIT} bytes")
        if self.tell() > self._allowed:
            raise tarfile.TarError(f"it describes an entry by more than {HEADERS} bytes")
        return data
