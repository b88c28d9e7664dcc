"""What is left to do of a run, by what its folder says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from runner.errors import BadInput
from runner.identity import config_hash
from runner.runs import read_json


def wanted(known: Mapping[str, Any], cfg: DictConfig) -> int:
    """The steps that `cfg` asks for of a run with this meta.json."""
    return int(cfg.epochs * known["steps_per_epoch"] if cfg.steps is None else cfg.steps)


def over(status: Mapping[str, Any], known: Mapping[str, Any], cfg: DictConfig) -> bool:
    """Whether nothing is left to do."""
    early = bool(status["reason"])  # a run that finished before its last step says why
    finished = status["status"] == "finished" and (status["step"] == wanted(known, cfg) or early)
    return finished or status["status"] == "diverged"


def share_left(cfg: DictConfig, folder: Path) -> float:
    """Of a run's steps: 1 for one that is not there, 0 for one that has ended. What a run that goes on, or was killed,
    has done since it last started is not known, and not taken off."""
    status, known = read_json(folder / "status.json"), read_json(folder / "meta.json")
    if not status or known.get("hash") != config_hash(cfg):
        return 1.0
    if over(status, known, cfg):
        return 0.0
    steps = wanted(known, cfg)
    check_not_beyond(folder, status["step"], steps)
    return 1 - status["step"] / max(steps, 1)


def check_not_beyond(folder: Path, step: int, steps: int) -> None:
    """Refuse to shorten a run."""
    if step > steps:
        raise BadInput(
            f"{folder} is at step {step} already, more than the {steps} asked for; ask for more epochs or steps, or "
            "choose another folder with name=… or hydra.run.dir=…"
        )
