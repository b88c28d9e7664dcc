"""A run's folder: one process at a time, one config for ever, every file replaced as a whole."""

import errno
import fcntl
import json
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from omegaconf import DictConfig, OmegaConf

from runner import checkpoint
from runner.dataset.files import writable
from runner.errors import BadInput, CannotWrite
from runner.identity import config_hash
from runner.writing import explained, whole, write_json

LOCK = ".lock"
_BEFORE_META = (LOCK, "meta.json.tmp")  # what there can be of a run that died before it had a meta.json


class RunFolder:
    """Holds the folder's lock while it is entered. The lock is the system's own: it dies with the process."""

    def __init__(self, path: Path, cfg: DictConfig) -> None:
        self.path, self.cfg, self.hash = path.absolute(), cfg, config_hash(cfg)

    def __enter__(self) -> Self:
        self._lock = self._open()
        try:
            self._take()
        except BaseException:
            os.close(self._lock)
            raise
        try:
            self._check_owner()
            self._tidy()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        """Release the folder; one that is no run's is left as if this one had never been."""
        with suppress(OSError):  # it may be gone, or another process has just come
            if self.held() and not (self.path / "meta.json").exists():
                (self.path / LOCK).unlink()
                if not any(self.path.iterdir()):
                    self.path.rmdir()
        os.close(self._lock)

    def _open(self) -> int:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not writable(self.path):
                raise PermissionError(errno.EACCES, "it is read-only")
            return os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            a_file = isinstance(error, FileExistsError | NotADirectoryError)
            reason = "a file is in its place" if a_file else error.strerror
            raise BadInput(
                f"the run's folder {self.path} cannot be written: {reason}; choose another with hydra.run.dir=…"
            ) from error

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(self._busy) from error
        except OSError as error:
            raise BadInput(
                f"the run's folder {self.path} should be on a file system with locks, found one without "
                f"({error.strerror}); choose another with hydra.run.dir=…"
            ) from error
        if not self.held():  # a process that was refused has just removed the file that this one locked
            raise BadInput(self._busy)

    @property
    def _busy(self) -> str:
        return (
            f"another process is running in {self.path}; wait for it, or choose another folder with name=… or "
            "hydra.run.dir=…"
        )

    def held(self) -> bool:
        """Whether the folder is still the one that was locked: it may be removed or replaced in mid-run."""
        try:
            return os.path.samestat(os.stat(self.path / LOCK), os.fstat(self._lock))
        except OSError:
            return False

    def fileno(self) -> int:
        """The lock's descriptor: a process that inherits it holds the folder too, as long as it lives."""
        return self._lock

    def check_held(self) -> None:
        """Raises CannotWrite rather than that a run writes into a folder which is not its own any more."""
        if not self.held():
            raise CannotWrite(
                f"the run's folder {self.path} was removed or replaced while the run was going on; put it back to go "
                "on from its last checkpoint, or start again"
            )

    def _check_owner(self) -> None:
        meta = self.read("meta.json")
        foreign = sorted(p.name for p in self.path.iterdir() if p.name not in _BEFORE_META)
        if meta is None and foreign:
            raise BadInput(
                f"{self.path} should be empty or a run's folder, found {', '.join(foreign[:3])} and no meta.json; "
                "choose another with hydra.run.dir=…"
            )
        if meta is not None and meta.get("hash") != self.hash:
            raise BadInput(
                f"{self.path} holds a run of another config (hash {meta.get('hash')}, this one has {self.hash}); "
                "choose another folder with hydra.run.dir=…, or leave it to the program"
            )

    def _tidy(self) -> None:
        """Remove what a process that died was writing aside."""
        for pattern in ("*.tmp", "*/*.tmp"):
            for leftover in self.path.glob(pattern):
                leftover.unlink()

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON object of the folder, None if there is no such file."""
        path = self.path / name
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise BadInput(f"{path} should hold a JSON object and does not; choose another folder with hydra.run.dir=…")
        return found

    def write_config(self, overrides: list[str], hydra_cfg: DictConfig | None) -> None:
        """The `.hydra` folder as Hydra writes it: config.yaml, hydra.yaml, overrides.yaml."""
        folder = self.path / ".hydra"
        with explained(folder):
            folder.mkdir(exist_ok=True)
        files = {"config.yaml": self.cfg, "overrides.yaml": OmegaConf.create(list(overrides))}
        if hydra_cfg is not None:
            files["hydra.yaml"] = OmegaConf.masked_copy(hydra_cfg, ["hydra"])
        for name, content in files.items():
            with whole(folder / name) as sink:
                sink.write(OmegaConf.to_yaml(content).encode())

    def save(self, state: dict[str, Any]) -> None:
        """Keep a checkpoint, which says whose it is."""
        self.check_held()
        checkpoint.save(self.path, {**state, "hash": self.hash})

    def status(self, status: str, step: int, reason: str = "", replicas: Sequence[dict[str, Any]] = ()) -> None:
        self.check_held()
        content = {"status": status, "reason": reason, "step": step}
        write_json(self.path / "status.json", {**content, "replicas": list(replicas)} if replicas else content)

    def failed(self, step: int, error: Exception) -> None:
        """The status `failed` and the traceback into run.log, as far as they can still be written."""
        with suppress(OSError):  # first: where there is little room, it should be the status that has it
            self.status("failed", step, f"{type(error).__name__}: {error}")
        with suppress(OSError):
            self.log("".join(traceback.format_exception(error)))

    def note(self, text: str) -> None:
        """Say it on standard error and keep it in the folder's run.log."""
        print(text, file=sys.stderr)
        self.log(text)

    def log(self, text: str) -> None:
        """Keep it in the folder's run.log."""
        self.check_held()
        with (self.path / "run.log").open("a") as log:
            log.write(f"{datetime.now().isoformat(timespec='seconds')} {text}\n")
