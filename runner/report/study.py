"""A study: what a paper claims about an experiment, the rule by which data decide each claim, and the figures."""

import importlib
import json
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from runner import analysis
from runner.errors import BadInput
from runner.report.statistics import Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Runs:
    """The tables of a sweep's folder, each read once. Frames have `width` and `seed` in front, and whatever else of the
    config varies or is asked for."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._tables: dict[tuple[str, ...], pd.DataFrame] = {}

    def table(self, name: str, *config: str) -> pd.DataFrame:
        """`<name>.csv` of all runs, with the config's values under the dotted keys `config`."""
        key = (name, *config)
        if key not in self._tables:
            self._tables[key] = analysis.load(self.folder, name, ("width", "seed", *config))
        return self._tables[key]

    def has(self, name: str) -> bool:
        return any(self.folder.rglob(f"{name}.csv"))

    @property
    def metrics(self) -> pd.DataFrame:
        return self.table("metrics")

    @property
    def epochs(self) -> pd.DataFrame:
        return self.table("epochs")

    @cached_property
    def configs(self) -> list[dict[str, Any]]:
        found = [json.loads(path.read_text())["config"] for path in sorted(self.folder.rglob("meta.json"))]
        if not found:
            raise BadInput(f"{self.folder} should hold runs, found no meta.json in or below it")
        return found

    @property
    def experiment(self) -> str | None:
        return self.configs[0].get("experiment")

    @property
    def scale(self) -> str:
        return str(self.configs[0].get("scale", "paper"))

    @property
    def told(self) -> str:
        """How many runs there are, and at each width where these are not equally many."""
        widths = Counter(float(config["width"]) for config in self.configs)
        each = ", ".join(f"{count} at width {width:g}" for width, count in sorted(widths.items()))
        count = f"{len(self.configs)} run{'s' * (len(self.configs) > 1)}"
        return f"{count}: {each}" if len(set(widths.values())) > 1 else count

    @property
    def command(self) -> str:
        """What makes these runs: the experiment and its scale, and what was overridden by hand."""
        folders = [path.parent for path in self.folder.rglob("meta.json")]
        given = [_task_overrides(folder / ".hydra" / "overrides.yaml") for folder in folders]
        same = [one for one in given[0] if all(one in other for other in given)] if given else []
        rest = [one for one in same if not one.startswith(("experiment=", "scale=", "data_root="))]
        words = ["python", "-m", "runner", "-m", f"experiment={self.experiment}", f"scale={self.scale}", *rest]
        return " ".join(map(shlex.quote, words))


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
    """`text`: the paper's claim in one sentence. `rule`: when it holds, when it does not, and what leaves it open."""

    name: str
    text: str
    rule: str
    judge: Callable[[Runs], Finding]


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


def judged(claim: Claim, runs: Runs) -> Finding:
    """Its finding; a sweep that lacks what the rule needs leaves it open, and says what is missing."""
    try:
        return claim.judge(runs)
    except (BadInput, KeyError, IndexError, ValueError) as error:
        return Finding(Outcome.UNDECIDED, f"These runs lack what the rule needs ({type(error).__name__}: {error}).")
