"""Runs from Python: the command line's run, its folder returned."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from runner.config import CONF_DIR
from runner.errors import BadInput
from runner.wording import message


def run(overrides: Sequence[str] = ()) -> Path:
    """Run what `python -m runner <overrides>` would, or continue it, and return its folder.

    Where the run diverged, standard error says so, and its status.json.

    Raises BadInput for what the command line refuses, the error itself where the run failed, and KeyboardInterrupt
    where a signal ended it (after a checkpoint: calling it again goes on).
    """
    from runner.job import execute

    if isinstance(overrides, str):
        raise BadInput(f"overrides should be a list, found a string: runner.run([{overrides!r}])")
    if {"-m", "--multirun"} & set(overrides):
        raise BadInput("overrides should be those of one run, found -m; python -m runner -m … makes a sweep")
    try:
        with initialize_config_dir(CONF_DIR, version_base="1.3", job_name="runner"):
            composed = compose("config", overrides=list(overrides), return_hydra_config=True)
            folder = Path(str(OmegaConf.select(composed, "hydra.run.dir"))).absolute()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise BadInput(message(error)) from error
    if composed.plan:
        raise BadInput("plan should be false, found true; python -m runner … plan=true tells what a run will cost")
    cfg = composed.copy()
    with open_dict(cfg):
        del cfg["hydra"]
    ended = execute(cfg, folder, list(overrides), composed)
    if ended.status == "interrupted":
        raise KeyboardInterrupt(ended.reason)
    if ended.status == "diverged":
        print(f"runner: diverged after {ended.step} steps: {ended.reason}", file=sys.stderr)
    return folder
