"""One run from its config to its files: started, continued, or found finished."""

import time
import traceback
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from runner import checkpoint
from runner.build import build, check_config, device_of
from runner.curvature import randomness
from runner.display import Display
from runner.ending import Ended
from runner.errors import BadInput
from runner.experiment import Experiment
from runner.folder import RunFolder
from runner.progress import Progress
from runner.provenance import meta
from runner.records import check_length, write_json
from runner.settings import settings
from runner.signals import StopSignals
from runner.stopwatch import Costs
from runner.train import Hooks, train


def execute(cfg: DictConfig, path: Path, overrides: list[str], hydra_cfg: DictConfig | None = None) -> Ended:
    """Run the config in the folder `path`, or what is left of it. Raises BadInput before any work; an error during the
    work leaves its traceback in the folder's run.log and the status `failed`."""
    check_config(cfg)
    device = device_of(cfg.device, cfg.precision)
    with RunFolder(path, cfg) as folder, randomness.preserved(device), settings(cfg):
        state = _previous(folder, cfg)
        if isinstance(state, Ended):
            return state
        run = build(cfg)
        if state and state["step"] > run.steps:
            raise BadInput(
                f"{folder.path} is at step {state['step']} already, more than the {run.steps} asked for; "
                "ask for more epochs or steps, or choose another folder with hydra.run.dir=…"
            )
        accounts = {**meta(cfg, run), "wall_seconds": (folder.read("meta.json") or {}).get("wall_seconds", 0.0)}
        write_json(folder.path / "meta.json", accounts)  # first: it says whose folder this is
        folder.write_config(overrides, hydra_cfg)
        return _supervised(folder, run, cfg, state, accounts)


def _previous(folder: RunFolder, cfg: DictConfig) -> dict[str, Any] | Ended | None:
    """The checkpoint to go on from; how the run ended, if nothing is left to do; None for a new run."""
    status, known = folder.read("status.json"), folder.read("meta.json")
    if status is None or known is None:
        return None
    wanted = cfg.epochs * known["steps_per_epoch"] if cfg.steps is None else cfg.steps
    early = bool(status["reason"])  # a run that finished before its last step says why
    over = status["status"] == "finished" and (status["step"] == wanted or early)
    if over or status["status"] == "diverged":
        check_length(folder.path / "metrics.csv", 1)
        return Ended(status["status"], status["step"], status["reason"])
    state, complaints = checkpoint.load(folder.path)
    for complaint in complaints:
        folder.note(complaint)
    for name, size in (state["tables"] if state else {}).items():
        check_length(folder.path / f"{name}.csv", size)
    return state


def _supervised(
    folder: RunFolder, run: Experiment, cfg: DictConfig, state: dict[str, Any] | None, accounts: dict[str, Any]
) -> Ended:
    """Train with the status kept right whatever happens."""
    step = state["step"] if state else 0
    folder.status("running", step)
    try:
        ended, replicas = _run(folder, run, cfg, state, accounts)
    except KeyboardInterrupt:  # a second SIGINT: at once, without a checkpoint
        folder.status("interrupted", step, "SIGINT")
        raise
    except Exception as error:
        folder.log(traceback.format_exc())
        folder.status("failed", step, f"{type(error).__name__}: {error}")
        raise
    folder.status(ended.status, ended.step, ended.reason, replicas)
    return ended


def _run(
    folder: RunFolder, run: Experiment, cfg: DictConfig, state: dict[str, Any] | None, accounts: dict[str, Any]
) -> tuple[Ended, list[dict[str, Any]]]:
    """How the run ended, and each replica of it."""
    if state:
        torch.set_num_threads(state["threads"])
    progress, costs = Progress(run, folder.path), Costs(list(run.probes), run.device)
    progress.begin(state)
    began = time.monotonic()
    with StopSignals() as signals, Display(run.steps, progress.step, folder.path) as display:
        hooks = Hooks(
            save=lambda step: checkpoint.save(
                folder.path, {**progress.state(step), "threads": torch.get_num_threads()}
            ),
            stop=lambda: signals.received.name if signals.received else "",
            show=display.show,
            checkpoint_seconds=60 * cfg.checkpoint_minutes,
        )
        try:
            ended = train(run, progress, hooks, costs)
        finally:
            progress.flush()
    accounts["wall_seconds"] += time.monotonic() - began
    accounts["cost_in_training_steps"] = costs.in_training_steps()
    write_json(folder.path / "meta.json", accounts)
    return ended, progress.replicas(ended)
