"""Contracts that every experiment joins by having a yaml."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

import runner
from runner.config import CONF_DIR
from runner.errors import BadInput
from runner.knobs import check_config
from runner.report.statistics import Outcome
from runner.report.study import study

NAMES = sorted(path.stem for path in (Path(CONF_DIR) / "experiment").glob("*.yaml"))
# So small that two steps take no time, where a data set has such a key; image sets need the files.
TINY = {
    "gaussian": ["dataset.size=12"],
    "blobs": ["dataset.size=12"],
    "random_images": ["dataset.size=24"],
    "mnist": ["dataset.train_size=20", "dataset.test_size=10"],
    "cifar100": ["dataset.train_size=100", "dataset.test_size=100", "dataset.verify=false"],
    "tiny_imagenet": ["dataset.train_size=200", "dataset.test_size=200", "dataset.verify=false"],
}


def composed(*overrides: str) -> DictConfig:
    """As Hydra composes it for a sweep, with its `hydra` part."""
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


def jobs(name: str, scale: str) -> list[list[str]]:
    """The overrides of each job of its sweep."""
    cfg = composed(f"experiment={name}", f"scale={scale}")
    params = [f"{key}={value}" for key, value in (cfg.hydra.sweeper.params or {}).items()]
    batches = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(params), None)
    return [list(job) for batch in batches for job in batch]


def covering(found: list[list[str]]) -> list[list[str]]:
    """Jobs in which every value of every key occurs."""
    seen: set[str] = set()
    chosen = []
    for job in found:
        if not seen >= set(job):
            chosen.append(job)
            seen |= set(job)
    return chosen


def test_there_are_experiments() -> None:
    assert {"convex_fig2", "convex_thm1", "singularity_fig6", "landscape_count", "vanishing_escape"} <= set(NAMES)


@pytest.mark.parametrize("scale", ["small", "paper"])
@pytest.mark.parametrize("name", NAMES)
def test_every_job_composes(name: str, scale: str) -> None:
    found = jobs(name, scale)
    assert len(found) > 1, "an experiment compares"
    cfgs = [composed(f"experiment={name}", f"scale={scale}", *job) for job in covering(found)]
    for cfg in cfgs:
        check_config(cfg)
        assert cfg.experiment == name
        assert cfg.name == f"{name}-{scale}"
        assert cfg.steps is None, "it would win over epochs=… of a command line"


@pytest.mark.parametrize("name", ["convex_fig2_variants", "singularity_fig8"])
def test_minibatches_make_as_many_steps_as_full_batches(name: str) -> None:
    whole, tenth = (composed(f"experiment={name}", "scale=small", f"batch_size={size}") for size in ("null", 100))
    assert whole.epochs == 10 * tenth.epochs > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_runs_two_steps(name: str, tmp_path: Path) -> None:
    job = jobs(name, "small")[0]
    cfg = composed(f"experiment={name}", "scale=small", *job)
    kind = cfg.dataset._target_.rsplit(".", 1)[-1]
    root = Path(os.environ.get("RUNNER_DATA_ROOT", "no data"))
    if kind in ("mnist", "cifar100", "tiny_imagenet") and not root.is_dir():
        pytest.skip(f"RUNNER_DATA_ROOT does not say where {kind} lies")
    few = [f"replicas={min(cfg.replicas, 2)}"]
    if cfg.batch_size is not None:
        few.append(f"batch_size={min(cfg.batch_size, 10)}")
    small = [] if cfg.init._target_.endswith("Interpolating") else TINY[kind]
    folder = runner.run(
        [f"experiment={name}", "scale=small", *job, *small, *few, "steps=2", "device=cpu", f"hydra.run.dir={tmp_path}"]
    )
    assert len(pd.read_csv(folder / "metrics.csv")) >= 1


@pytest.mark.parametrize("name", NAMES)
def test_every_study_says_what_it_claims(name: str) -> None:
    about = study(name)
    assert about.claims or about.plots
    assert about.title
    assert about.setting
    names = [one.name for one in (*about.claims, *about.plots)]
    assert len(set(names)) == len(names)
    for claim in about.claims:
        assert claim.text.endswith((".", ".)"))
        assert len(claim.rule) > 20


def test_a_single_job_says_that_it_is_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "runner", "experiment=convex_fig2", "scale=small", "steps=0"]
    said = subprocess.run([*command, f"hydra.run.dir={tmp_path}"], capture_output=True, text=True, check=True)
    assert "one job of the experiment convex_fig2" in said.stdout + said.stderr


def test_a_key_that_is_given_replaces_the_experiments_sweep_over_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "runner", "-m", "experiment=convex_fig2", "scale=small", "steps=0", "width=1,2"]
    subprocess.run([*command, "seed=0", f"hydra.sweep.dir={tmp_path}"], capture_output=True, check=True)
    assert len(list(tmp_path.glob("*/metrics.csv"))) == 2


def test_scale_is_small_or_paper(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="scale should be small or paper"):
        runner.run(["scale=large", f"hydra.run.dir={tmp_path}"])


def test_outcomes_read_as_sentences() -> None:
    assert [str(one) for one in Outcome] == ["holds", "does not hold", "undecided at this scale"]
