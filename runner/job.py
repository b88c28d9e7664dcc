"""One run from its config to its files: started, continued, or found finished."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runner import checkpoint
from runner.crew import crew
from runner.display import Display, Reporter
from runner.ending import Ended
from runner.errors import BadInput
from runner.folder import RunFolder
from runner.knobs import check_config
from runner.left import check_not_beyond, over
from runner.records import Mark, check_length, verified
from runner.signals import StopSignals
from runner.stopwatch import in_training_steps, together
from runner.work import Work, one_process
from runner.writing import write_json


def execute(
    cfg: DictConfig,
    path: Path,
    overrides: list[str],
    hydra_cfg: DictConfig | None = None,
    *,
    display: Callable[[int, int, Path], Display | Reporter] = Display,
) -> Ended:
    """Run the config in the folder `path`, or what is left of it. Raises BadInput before any work; an error during the
    work leaves its traceback in the folder's run.log and the status `failed`. `display(steps, start, path)` makes what
    is told of the progress, if there is anything left to do."""
    check_config(cfg)
    with RunFolder(path, cfg) as folder:
        state = _previous(folder, cfg)
        known = folder.read("meta.json") or {}
        if isinstance(state, Ended) and not _elsewhere(known, cfg):
            return state
        with crew(cfg, folder) if cfg.devices > 1 else one_process(cfg) as work:
            if state:
                _same_data(folder, known, work)
            if isinstance(state, Ended):
                return state
            if state:
                check_not_beyond(folder.path, state["step"], work.steps)
            accounts = {
                **work.meta,
                **({"threads": state["threads"]} if state else {}),
                "wall_seconds": known.get("wall_seconds", 0.0),
                "spent": known.get("spent", {}),
                "resumed": known.get("resumed", 0) + bool(state),
            }
            write_json(folder.path / "meta.json", accounts)  # first: it says whose folder this is
            folder.write_config(overrides, hydra_cfg)
            return _supervised(folder, work, state, accounts, display)


def _elsewhere(known: dict[str, Any], cfg: DictConfig) -> bool:
    """Whether the data may be others than those of a run that has ended: they are looked at only if so."""
    before = known.get("config", {})
    places = {"data_root": before.get("data_root"), "dataset.verify": before.get("dataset", {}).get("verify")}
    return any(place is not None and OmegaConf.select(cfg, key) != place for key, place in places.items())


def _same_data(folder: RunFolder, known: dict[str, Any], work: Work) -> None:
    """Refuse to go on with other data, or to answer for them, which the config does not tell apart where `data_root` or
    a copy has changed."""
    for key in ("training_samples", "training_data", "test_data", "steps_per_epoch"):
        if key in known and known[key] != work.meta[key]:
            raise BadInput(
                f"the data of {folder.path} should have {key}={known[key]}, as when it began, found {work.meta[key]}; "
                "give it the same data_root, or choose another folder with name=…"
            )


def _previous(folder: RunFolder, cfg: DictConfig) -> dict[str, Any] | Ended | None:
    """The checkpoint to go on from; how the run ended, if nothing is left to do; None for a new run."""
    status, known = folder.read("status.json"), folder.read("meta.json")
    if known is None:
        return None
    if status is not None and over(status, known, cfg):
        check_length(folder.path / "metrics.csv", 1)
        return Ended(status["status"], status["step"], status["reason"])
    state, complaints = checkpoint.load(folder.path)
    if state is None and (complaints or (status and status["step"])):  # to start anew would be to lose what is there
        raise BadInput(
            f"{folder.path} should hold a whole checkpoint to go on from, found {'; '.join(complaints) or 'none'}; "
            "put one back, or remove the folder to start again"
        )
    if state is not None:
        for complaint in complaints:
            folder.note(f"{complaint}; falling back to the one before it, at step {state['step']}")
        _check_records(folder, state)
    return state


def _check_records(folder: RunFolder, state: dict[str, Any]) -> None:
    """Refuse a checkpoint that is not this run's, and tables that are not those that it knows of."""
    if state.get("hash") != folder.hash:
        raise BadInput(
            f"the checkpoint in {folder.path} should be of the config {folder.hash}, found one of {state.get('hash')}; "
            "put the run's own back, or remove the folder to start again"
        )
    for name, mark in state["tables"].items():
        verified(folder.path / f"{name}.csv", Mark(*mark))


def _supervised(
    folder: RunFolder,
    work: Work,
    state: dict[str, Any] | None,
    accounts: dict[str, Any],
    display: Callable[[int, int, Path], Display | Reporter],
) -> Ended:
    """Train with the status kept right whatever happens."""
    step = state["step"] if state else 0
    folder.status("running", step)
    try:
        with StopSignals() as signals, display(work.steps, step, folder.path) as shown:
            outcome = work.train(folder, state, lambda: signals.received.name if signals.received else "", shown.show)
        accounts["wall_seconds"] += outcome.seconds
        accounts["spent"] = together(accounts["spent"], outcome.spent)
        accounts["cost_in_training_steps"] = in_training_steps(accounts["spent"])
        write_json(folder.path / "meta.json", accounts)
    except KeyboardInterrupt:  # a second SIGINT: at once, without a checkpoint
        folder.status("interrupted", step, "SIGINT")
        raise
    except Exception as error:
        folder.failed(step, error)
        raise
    ended = outcome.ended
    folder.status(ended.status, ended.step, ended.reason, outcome.replicas)
    return ended
