"""A run's folder: one process at a time, one config for ever, every file replaced as a whole."""

import fcntl
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from omegaconf import DictConfig, OmegaConf

from runner.errors import BadInput
from runner.identity import config_hash
from runner.records import write_json


class RunFolder:
    """Holds the folder's lock while it is entered. The lock is the system's own: it dies with the process."""

    def __init__(self, path: Path, cfg: DictConfig) -> None:
        self.path, self.cfg, self.hash = path.absolute(), cfg, config_hash(cfg)

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise BadInput(
                f"the run's folder {self.path} cannot be written: {error.strerror}; choose another with hydra.run.dir=…"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise BadInput(
                f"another process is running in {self.path}; wait for it, or choose another folder with hydra.run.dir=…"
            ) from error
        try:
            self._check_owner()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the folder; one that a refused run found empty is left as if it had never been."""
        if not (self.path / "meta.json").exists():
            (self.path / ".lock").unlink(missing_ok=True)
            if not any(self.path.iterdir()):
                self.path.rmdir()
        os.close(self._lock)

    def _check_owner(self) -> None:
        meta = self.read("meta.json")
        foreign = sorted(p.name for p in self.path.iterdir() if p.name != ".lock" and p.suffix != ".tmp")
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
        folder.mkdir(exist_ok=True)
        files = {"config.yaml": self.cfg, "overrides.yaml": OmegaConf.create(list(overrides))}
        if hydra_cfg is not None:
            files["hydra.yaml"] = OmegaConf.masked_copy(hydra_cfg, ["hydra"])
        for name, content in files.items():
            aside = folder / f"{name}.tmp"
            aside.write_text(OmegaConf.to_yaml(content))
            os.replace(aside, folder / name)

    def status(self, status: str, step: int, reason: str = "", replicas: Sequence[dict[str, Any]] = ()) -> None:
        content = {"status": status, "reason": reason, "step": step}
        write_json(self.path / "status.json", {**content, "replicas": list(replicas)} if replicas else content)

    def note(self, text: str) -> None:
        """Say it on standard error and keep it in the folder's run.log."""
        print(text, file=sys.stderr)
        self.log(text)

    def log(self, text: str) -> None:
        """Keep it in the folder's run.log."""
        with (self.path / "run.log").open("a") as log:
            log.write(f"{datetime.now().isoformat(timespec='seconds')} {text}\n")
