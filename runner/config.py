"""The typed schema of the flat knobs, the resolvers that the configs use, and where the configs are."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from runner.identity import run_id

_INSTALLED = Path(__file__).parent / "conf"  # in a wheel the configs lie inside the package, in a checkout beside it
CONF_DIR = str(_INSTALLED if _INSTALLED.is_dir() else Path(__file__).parent.parent / "conf")


@dataclass
class Until:
    """What ends a run before its last step."""

    grad_norm: float | None = None


@dataclass
class SweepKnobs:
    """How the jobs of a sweep share a machine."""

    keep_going: bool = True
    jobs_per_device: int = 1


@dataclass
class Config:
    """The knobs that belong to no group; their meaning stands in the README."""

    name: str = "default"
    experiment: str | None = None  # a figure or theorem of a paper, set by its own yaml; its name in runner.report
    scale: str = "paper"
    width: float = 1.0
    seed: int = 0
    replicas: int = 1
    epochs: int = 1000
    steps: int | None = None
    batch_size: int | None = None
    log_every: int = 1
    eval_every: int | None = None
    device: str = "auto"
    devices: int = 1
    sync_batch_norm: bool = False
    precision: str = "fp32"
    deterministic: bool = False
    compile: bool = False
    clip_norm: float | None = None
    checkpoint_minutes: float = 5.0
    logger: list[str] = field(default_factory=list)
    data_root: str = field(default_factory=lambda: os.environ.get("RUNNER_DATA_ROOT") or "data")
    until: Until = field(default_factory=Until)
    plan: bool = False
    sweep: SweepKnobs = field(default_factory=SweepKnobs)
    recipe: Any = MISSING
    dataset: Any = MISSING
    arch: Any = MISSING
    init: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    probe: Any = field(default_factory=dict)


def _scaled(base: int, width: float) -> int:
    from runner.arch.scaled import scaled

    return scaled(base, width)


def _at_scale(small: Any, paper: Any, _root_: Any) -> Any:
    """`${at_scale:<small>,<paper>}` in an experiment: the value of one of its two forms."""
    return small if _root_.scale == "small" else paper


def _epochs_of(steps: int, _root_: Any) -> int:
    """`${epochs_of:<steps>}` in an experiment whose jobs differ in their batch size: the epochs that have so many
    steps."""
    data = _root_.dataset.get("train_size") or _root_.dataset.get("size")
    return steps if _root_.batch_size is None else steps // -(-data // _root_.batch_size)


def _register() -> None:
    """Make the schema and the resolvers known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(name="open", node=OmegaConf.create({}, flags={"struct": False}))
    # Hydra copies the store, 30 ms each time, before it composes a config and before it lists a group. Nobody writes
    # into the copies, and what is loaded from the store is a copy already.
    setattr(ConfigStore, "__deepcopy__", lambda self, memo: self)  # noqa: B010
    OmegaConf.register_new_resolver("scaled", _scaled, replace=True)
    OmegaConf.register_new_resolver("at_scale", _at_scale, replace=True)
    OmegaConf.register_new_resolver("epochs_of", _epochs_of, replace=True)
    OmegaConf.register_new_resolver("run_id", lambda _root_: run_id(_root_), replace=True)


_register()  # on import, since launchers import this in processes of their own
