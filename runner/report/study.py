"""A study: what a paper claims about an experiment, the rule by which data decide each claim, and the figures."""

import importlib
import json
import logging
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from runner import analysis
from runner.config import CONF_DIR
from runner.errors import BadInput
from runner.report.statistics import Outcome
from runner.runs import AROUND, Run, Sweep, aside, flatten, sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure


log = logging.getLogger(__name__)

ENDED = ("finished", "diverged")


class Runs:
    """The tables of a sweep's folder, each read once. Frames have `width` and `seed` in front, and whatever else of the
    config varies or is asked for. Runs that are still under way, stopped or failed are left out: what a rule takes for
    their end is not it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._tables: dict[tuple[str, ...], pd.DataFrame] = {}

    def table(self, name: str, *config: str) -> pd.DataFrame:
        """`<name>.csv` of all runs, with the config's values under the dotted keys `config`."""
        key = (name, *config)
        if key not in self._tables:
            rows = analysis.load(self.folder, name, ("width", "seed", *config))
            self._tables[key] = rows[rows["status"].isin(ENDED)].reset_index(drop=True)
        return self._tables[key]

    @property
    def metrics(self) -> pd.DataFrame:
        return self.table("metrics")

    @property
    def epochs(self) -> pd.DataFrame:
        return self.table("epochs")

    @cached_property
    def _sweep(self) -> Sweep:
        return sweep(self.folder)

    @property
    def _ended(self) -> list[Run]:
        """The runs that count."""
        return [run for run in self._sweep.runs if run.status in ENDED]

    @property
    def folders(self) -> list[Path]:
        """Of the runs that count."""
        if not self._ended:
            raise BadInput(f"{self.folder} should hold runs that came to their end, found {self._left_out}")
        return [run.path for run in self._ended]

    @property
    def _left_out(self) -> str:
        counts = Counter(run.status for run in self._sweep.runs if run.status not in ENDED)
        return ", ".join(f"{count} {status}" for status, count in counts.items())

    @cached_property
    def metas(self) -> list[dict[str, Any]]:
        return [json.loads((folder / "meta.json").read_text()) for folder in self.folders]

    @cached_property
    def diverged(self) -> int:
        """How many networks did, replicas counted one by one."""
        statuses = [
            run.statuses(range(int(config.get("replicas", 1))))
            for run, config in zip(self._ended, self.configs, strict=True)
        ]
        return sum(one.count("diverged") for one in statuses)

    def check_settings(self, swept: Collection[str]) -> None:
        """Refuse runs that differ in more than seed, width and the keys or groups `swept`, and in what follows from
        these: a rule would take their networks for those of one setting."""
        for key in ("experiment", "scale"):
            if len(found := {str(config.get(key)) for config in self.configs}) > 1:
                raise BadInput(f"{self.folder} should hold runs of one {key}, found {', '.join(sorted(found))}")
        frame = varying(self.configs)
        varied = {"width", *swept} - {"seed"}
        known = [key for key in frame if any(f"{key}.".startswith(f"{one}.") for one in varied)]
        grouped = frame.groupby(known, dropna=False) if known else frame.groupby(lambda _: 0)
        for key in frame.columns.difference([*known, "seed"]):
            told = aside(key) or ("seed" in frame and frame[key].equals(frame["seed"]))
            if not told and grouped[key].nunique().max() > 1:
                said = ", ".join(f"{count} with {value}" for value, count in frame[key].value_counts().items())
                raise BadInput(f"{self.folder} should hold runs of one {key}, found {said}; give each its own name=…")

    @property
    def configs(self) -> list[dict[str, Any]]:
        return [meta["config"] for meta in self.metas]

    @property
    def experiment(self) -> str | None:
        return self.configs[0].get("experiment")

    @property
    def scale(self) -> str:
        return str(self.configs[0].get("scale", "paper"))

    @property
    def told(self) -> str:
        """How many runs there are, and at each width where these are not equally many; how many networks diverged;
        and which runs are left out."""
        widths = Counter(float(config["width"]) for config in self.configs)
        each = ", ".join(f"{count} at width {width:g}" for width, count in sorted(widths.items()))
        count = f"{len(self.configs)} run{'s' * (len(self.configs) > 1)}"
        told = f"{count}: {each}" if len(set(widths.values())) > 1 else count
        if self.diverged:
            told += f"; diverged: {self.diverged} network{'s' * (self.diverged > 1)}"
        return f"{told}; left out: {self._left_out}" if self._left_out else told

    @cached_property
    def _given(self) -> list[list[str]]:
        """What was overridden by hand, of each run."""
        return [_task_overrides(folder / ".hydra" / "overrides.yaml") for folder in self.folders]

    @property
    def _given_to_all(self) -> list[str]:
        return [one for one in self._given[0] if all(one in other for other in self._given)] if self._given else []

    def form(self, sweep: Collection[str]) -> str:
        """The scale, and whether more was changed by hand than the values over which the experiment's `sweep` goes."""
        changed = [one for one in map(_key, self._given_to_all) if one not in sweep and not aside(one, AROUND)]
        return f"{self.scale}, changed" if changed else self.scale

    def command(self, sweep: Mapping[str, Sequence[str]]) -> str:
        """What makes these runs: the experiment and its scale, and what was overridden by hand, also where these have
        others than the values over which its `sweep` goes, or a part of them."""
        rest = [one for one in self._given_to_all if _key(one) == "name" or not aside(_key(one), AROUND)]
        values = {
            key: {one.partition("=")[2] for each in self._given for one in each if one.startswith(f"{key}=")}
            for key in sweep
        }
        parts = [
            f"{key}={','.join([one for one in every if one in values[key]] + _others(values[key], every))}"
            for key, every in sweep.items()
            if len(values[key]) > 1 and values[key] != set(every)
        ]
        words = ["python", "-m", "runner", "-m", f"experiment={self.experiment}", f"scale={self.scale}", *rest, *parts]
        return " ".join(map(shlex.quote, words))


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _others(values: Collection[str], every: Sequence[str]) -> list[str]:
    """Those that are not among `every`, whole numbers in their order."""
    return sorted(set(values).difference(every), key=lambda one: (len(one), one))


def varying(configs: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A row for each config, and a column for each key whose values differ: in JSON, None where a config has no such
    key, as one of a program that did not have it."""
    flat = [flatten(config) for config in configs]
    values = {
        key: [json.dumps(one[key]) if key in one else None for one in flat]
        for key in dict.fromkeys(key for one in flat for key in one)
    }
    return pd.DataFrame({key: column for key, column in values.items() if len(set(column)) > 1})


def _task_overrides(path: Path) -> list[str]:
    from omegaconf import OmegaConf

    return [str(one) for one in OmegaConf.load(path)] if path.exists() else []


@dataclass(frozen=True)
class Finding:
    """What a rule found: the outcome, and in one sentence the numbers behind it with their uncertainty."""

    outcome: Outcome
    measured: str


@dataclass(frozen=True)
class Claim:
    """`text`: the paper's claim in one sentence. `rule`: when it holds, when it does not, and what leaves it open.
    `of_diverged`: whether the rule knows of networks that diverged. Any other is left open by them: it takes their last
    row for an end, and what they measured for that of a whole run."""

    name: str
    text: str
    rule: str
    judge: Callable[[Runs], Finding]
    of_diverged: bool = False


@dataclass(frozen=True)
class Plot:
    """A figure; `draw` returns it, in the style that is set around the call."""

    name: str
    caption: str
    draw: Callable[[Runs], "Figure"]


@dataclass(frozen=True)
class Study:
    """`title` names the figure or theorem, `paper` the paper, `setting` what was run, in a sentence or two. `remark`:
    how to read it in plain words, if something has to be said."""

    title: str
    paper: str
    setting: str
    claims: tuple[Claim, ...]
    plots: tuple[Plot, ...]
    remark: Callable[[Runs], str] = field(default=lambda runs: "")


def study(experiment: str) -> Study:
    """That of an experiment, by its name: `STUDY` of runner.report.studies.<experiment>."""
    try:
        found: Study = importlib.import_module(f"runner.report.studies.{experiment}").STUDY
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("runner.report.studies"):
            raise
        raise BadInput(
            f"experiment should have a module of its own in runner/report/studies, found {experiment}"
        ) from error
    return found


def sweep_of(experiment: str, scale: str = "paper") -> dict[str, list[str]]:
    """The keys and groups over which the sweep of an experiment goes, and their values as they are written."""
    from hydra import compose, initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser

    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        overrides = [f"experiment={experiment}", f"scale={scale}"]
        params = compose("config", overrides=overrides, return_hydra_config=True).hydra.sweeper.params or {}
        parsed = {key: OverridesParser.create().parse_override(f"{key}={params[key]}") for key in params}
    return {
        key: list(map(str, one.sweep_string_iterator())) if one.is_sweep_override() else [str(params[key])]
        for key, one in parsed.items()
    }


def judged(claim: Claim, runs: Runs) -> Finding:
    """Its finding; a sweep that lacks what the rule needs leaves it open, as do networks that diverged."""
    try:
        found = claim.judge(runs)
    except BadInput as error:
        return Finding(Outcome.UNDECIDED, f"These runs lack what the rule needs: {error}.")
    except KeyError as error:
        log.warning("The rule of %s asks for %s", claim.name, error)
        return Finding(Outcome.UNDECIDED, f"These runs ({runs.told}) lack what the rule needs: {error}.")
    except (LookupError, ValueError) as error:
        log.warning("The rule of %s stopped: %r", claim.name, error)
        return Finding(Outcome.UNDECIDED, f"These runs ({runs.told}) lack settings that the rule compares.")
    if runs.diverged and not claim.of_diverged:
        said = f"{found.measured} Left open: {runs.diverged} diverged, of whose end the rule knows nothing."
        return replace(found, outcome=Outcome.UNDECIDED, measured=said)
    return found
