"""The loss along the straight lines between two runs at matching steps, for a sweep over starts and over gradient
descent and SGD, all of which kept their networks (probe=snapshot)."""

from pathlib import Path

import pandas as pd

from runner import line, reload
from runner.errors import BadInput
from runner.report.study import Runs
from runner.settings import settings
from runner.writing import whole

TABLE = "lines.csv"
COLUMNS = ["kind", "a", "b", "step", "alpha", "train_loss", "distance", "travelled"]
SAMPLES = 1000
ALPHAS = [round(-0.25 + 0.0625 * place, 4) for place in range(25)]  # from -0.25 to 1.25, 0 and 1 among them


def lines(runs: Runs) -> pd.DataFrame:
    """A row for each pair of runs, matching step and position alpha on the line w(alpha) = (1 - alpha) w_A + alpha w_B.

    kind: `start` for gradient descent (A) and SGD (B) from the same start, `random` for SGD from two starts, in
    disjoint pairs; a, b: the seeds; distance = |w_B - w_A|, travelled: how far A and B are from their own starts,
    on average.
    The table is kept beside the runs, and made from their snapshots when one of them is younger.
    """
    path = runs.folder / TABLE
    snapshots = [one.stat().st_mtime for one in runs.folder.glob("*/snapshot/*.pt")]
    if not path.is_file() or (snapshots and path.stat().st_mtime < max(snapshots)):
        table = walked(runs).to_csv(index=False)
        with whole(path) as sink:
            sink.write(table.encode())
    return pd.read_csv(path)


def walked(runs: Runs) -> pd.DataFrame:
    """The table, from the snapshots."""
    tables = [_between(kind, a, b) for kind, a, b in pairs(runs)]
    if not tables:
        raise BadInput(f"{runs.folder} should hold runs with snapshots in pairs (seeds, batch sizes), found none")
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def pairs(runs: Runs) -> list[tuple[str, Path, Path]]:
    found = dict[tuple[int, bool], Path]()
    for folder in runs.folders:
        cfg = reload.config(folder)
        kind = int(cfg.seed), cfg.batch_size is None
        if kind in found:
            raise BadInput(
                f"{runs.folder} should hold one run of each seed with the full batch, and one with minibatches, found "
                f"{found[kind].name} and {folder.name}"
            )
        found[kind] = folder
    seeds = sorted({seed for seed, _ in found})
    same = [("start", (seed, True), (seed, False)) for seed in seeds]
    other = [("random", (a, False), (b, False)) for a, b in zip(seeds[::2], seeds[1::2], strict=False)]
    return [(kind, found[a], found[b]) for kind, a, b in same + other if a in found and b in found]


def _between(kind: str, a: Path, b: Path) -> pd.DataFrame:
    cfg, other = reload.config(a), reload.config(b)
    cfg.probe = {}
    ends = [{saved.step: saved for saved in reload.snapshots(folder)} for folder in (a, b)]
    rows = []
    with settings(cfg):
        run = reload.experiment(cfg)
        samples = line.samples_of(run, SAMPLES)
        for step in sorted(ends[0].keys() & ends[1].keys()):
            states = [kept[step].read() for kept in ends]
            rows += [{"step": step, **row} for row in line.walk(run, states[0], states[1], ALPHAS, samples)]
    far = pd.concat([pd.read_csv(folder / "metrics.csv") for folder in (a, b)]).groupby("step")["snapshot_distance"]
    table = pd.DataFrame(rows).assign(kind=kind, a=cfg.seed, b=other.seed)
    return table.assign(travelled=table["step"].map(far.mean()))


def heights(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each line: the least and the greatest loss between A and B, its mean over the way, and how much higher
    the way is than the higher of its ends (`barrier`)."""
    way = table[table["alpha"].between(0, 1)]
    lines_of = way.groupby(["kind", "a", "b", "step"])
    found = lines_of["train_loss"].agg(["min", "max", "mean"]).reset_index()
    at = {end: way[way["alpha"] == end].groupby(["kind", "a", "b", "step"])["train_loss"].first() for end in (0, 1)}
    ends = pd.concat(at, axis=1).max(axis=1).rename("end").reset_index()
    first = lines_of[["distance", "travelled"]].first().reset_index()
    found = found.merge(ends, on=["kind", "a", "b", "step"]).merge(first, on=["kind", "a", "b", "step"])
    return found.assign(barrier=found["max"] - found["end"])
