"""What is measured afterwards is what the run would have measured."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import runner
from runner.config import CONF_DIR

CONV = [
    "dataset=random_images", "dataset.size=50", "dataset.shape=[3,8,8]", "dataset.classes=4", "arch=resnet50",
    "arch.blocks=1", "arch.base_width=4", "batch_size=12", "device=cpu",
]  # fmt: skip
MLP = ["dataset.size=60", "arch.depth=3", "arch.base_width=6", "batch_size=12", "device=cpu"]
SLICES = ["probe.split.on=[batch,heldout,sample]", "probe.split.per=layer"]
PROBES = sorted(path.stem for path in (Path(CONF_DIR) / "probe").glob("*.yaml") if path.stem != "custom")
ROWS = ["step", "epoch", "replica", "lr", "train_loss", "train_error", "grad_norm"]
SPLIT = ["split_gHg", "split_gGg", "split_gHrg"]
SNAPSHOTS = ["steps=12", "log_every=5", "probe.snapshot.every=5"]


def run_in(folder: Path, *overrides: str) -> Path:
    return runner.run([*overrides, f"hydra.run.dir={folder}"])


def read(folder: Path, name: str = "metrics") -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv", dtype=str)


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("setting", "options"), [(CONV, ["probe.split.on=[batch,heldout]"]), (MLP, SLICES)], ids=["batch-norm", "mlp"]
)
def test_the_same_digits_as_during_the_run(
    tmp_path: Path, setting: list[str], options: list[str], call: Callable[..., list[str]]
) -> None:
    """Split and estimates at every snapshot; the run's own files stay as they are."""
    options = [*options, "probe.fd.form=next_batch"]
    run = run_in(tmp_path / "run", *setting, *SNAPSHOTS, "probe=[split,fd,snapshot]", *options, "schedule=cosine")
    before, out = files(run), tmp_path / "out"
    assert call("probe", run, "probe=[split,fd]", *options, "--out", out) == [str(out)]
    assert files(run) == before
    own, found = read(run), read(out)
    assert found["step"].tolist() == ["0", "5", "10", "12"]
    columns = [c for c in own.columns if c in ROWS or c.startswith(("split_", "fd_"))]
    assert len(columns) >= len(ROWS) + 8
    assert found[columns].equals(own[columns])
    assert found["test_loss"].isna().all()
    if options[:-1] == SLICES:
        assert read(out, "split").equals(read(run, "split"))


@pytest.mark.parametrize("name", PROBES)
def test_every_probe(tmp_path: Path, name: str, call: Callable[..., list[str]]) -> None:
    """Its columns and its table, if it has one, digit for digit."""
    options = [f"probe.{name}.on=[batch,heldout]", f"probe.{name}.every=2"]
    kept = [f"probe=[{','.join({name, 'snapshot'})}]", "probe.snapshot.every=2"]
    run = run_in(tmp_path / "run", *MLP, "steps=2", "dataset.size=24", "batch_size=8", *kept, *options)
    call("probe", run, f"probe={name}", *options, "--out", tmp_path / "out")
    columns = [column for column in read(tmp_path / "out").columns if column.startswith(f"{name}_")]
    assert columns
    assert read(tmp_path / "out")[columns].equals(read(run).iloc[[0, 2]].reset_index(drop=True)[columns])
    if (run / f"{name}.csv").exists():
        assert (run / f"{name}.csv").read_bytes() == (tmp_path / "out" / f"{name}.csv").read_bytes()


class Centred(nn.Module):
    """Outputs depend on buffers that training moves: one that is not saved, and one that grows."""

    def __init__(self, input_shape: list[int], outputs: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(input_shape[0], 6), nn.Linear(6, outputs)
        self.register_buffer("mean", torch.zeros(6), persistent=False)
        self.register_buffer("seen", torch.zeros(1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z: Tensor = self.b(torch.tanh(y - self.mean)) - self.seen.mean(0)
        if self.training:
            self.mean = 0.7 * self.mean + 0.3 * y.detach().mean(0)
            self.seen = torch.cat([self.seen, z.detach().mean(0, keepdim=True)])
        return z


def test_buffers_that_a_state_dict_leaves_out_or_that_grow(tmp_path: Path, call: Callable[..., list[str]]) -> None:
    own = ["arch=custom", f"arch._target_={__name__}.Centred", "dataset.size=24", "dataset.dim=5", "batch_size=8"]
    own += ["init=default", "steps=7", "probe.snapshot.every=3", "device=cpu"]
    run = run_in(tmp_path / "run", *own, "probe=[split,hvp,snapshot]")
    call("probe", run, "probe=[split,hvp]", "--out", tmp_path / "out")
    columns = [*ROWS, *SPLIT, "hvp_gHg"]
    assert read(tmp_path / "out")[columns].equals(read(run).iloc[[0, 3, 6, 7]].reset_index(drop=True)[columns])
    cut = run_in(tmp_path / "cut", *own, "probe=[split,hvp,snapshot]", "steps=4")
    run_in(tmp_path / "cut", *own, "probe=[split,hvp,snapshot]")
    assert (cut / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()


def test_the_whole_data_set(tmp_path: Path, call: Callable[..., list[str]]) -> None:
    options = ["probe.hvp.on=[dataset]"]
    run = run_in(tmp_path / "run", *MLP, *SNAPSHOTS, "probe=[hvp,snapshot]", *options)
    call("probe", run, "probe=hvp", *options, "--steps", 5, 12, "--out", tmp_path / "out")
    own, found = read(run).set_index("step"), read(tmp_path / "out").set_index("step")
    assert found.index.tolist() == ["5", "12"]
    assert found["hvp_dataset_gHg"].tolist() == own["hvp_dataset_gHg"][["5", "12"]].tolist()


def test_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., list[str]]) -> None:
    """Without snapshots; and the default place for results, out of the way of the run's."""
    monkeypatch.chdir(tmp_path)
    run = run_in(tmp_path / "run", *CONV, "steps=3", "probe=[split]")
    (out,) = call("probe", run, "probe=[split]")
    assert out == f"outputs/probed/{tmp_path.name}/run/split"
    assert read(Path(out))[ROWS].equals(read(run)[ROWS].iloc[-1:].reset_index(drop=True))
    assert read(Path(out))["split_gHg"][0] == read(run)["split_gHg"].iloc[-1]
    frame = runner.analysis.load(out)
    assert frame["run"].tolist() == ["split"]


def test_replicas(tmp_path: Path, call: Callable[..., list[str]]) -> None:
    """Each measured alone, up to rounding as side by side."""
    run = run_in(tmp_path / "run", *MLP, "steps=4", "replicas=3", "precision=fp64", "probe=[split,snapshot]")
    call("probe", run, "probe=[split,snapshot]", "--steps", 4, "--out", tmp_path / "out")
    own = pd.read_csv(run / "metrics.csv").query("step == 4")[[*ROWS, *SPLIT]]
    found = pd.read_csv(tmp_path / "out" / "metrics.csv")[[*ROWS, *SPLIT]]
    assert found.to_numpy() == pytest.approx(own.to_numpy(), rel=1e-9, abs=1e-12)
    names = {path.name for path in (tmp_path / "out" / "snapshot").iterdir()}
    assert names == {f"weights-step4-replica{r}.pt" for r in range(3)}


def test_replicas_of_a_checkpoint_where_they_stopped(tmp_path: Path, call: Callable[..., list[str]]) -> None:
    until = ["replicas=3", "batch_size=null", "steps=60", "until.grad_norm=0.08"]
    run = run_in(tmp_path / "run", *MLP, *until, "precision=fp64", "probe=[split]")
    call("probe", run, "probe=[split]", "--out", tmp_path / "out")
    own = pd.read_csv(run / "metrics.csv").groupby("replica").last().reset_index()[[*ROWS, *SPLIT]]
    assert own["step"].nunique() == 3
    found = pd.read_csv(tmp_path / "out" / "metrics.csv")[[*ROWS, *SPLIT]]
    assert found.to_numpy() == pytest.approx(own.to_numpy(), rel=1e-9, abs=1e-12)


def test_a_probe_and_a_network_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., list[str]]
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "of_my_own.py").write_text(
        "from dataclasses import dataclass\n"
        "import torch\n"
        "from runner.probe.base import Probe\n"
        "class Net(torch.nn.Sequential):\n"
        "    def __init__(self, outputs: int, input_shape: list[int]):\n"
        "        super().__init__(torch.nn.Linear(input_shape[0], outputs))\n"
        "@dataclass(kw_only=True)\n"
        "class Rate(Probe):\n"
        "    names = ('lr',)\n"
        "    def measure(self, point):\n"
        "        return {'lr': torch.tensor(point.lr)}\n"
    )
    (tmp_path / "own" / "probe").mkdir()
    (tmp_path / "own" / "probe" / "rate.yaml").write_text(
        "# @package probe.rate\ndefaults: [/measure@_here_, _self_]\n_target_: of_my_own.Rate\n"
    )
    monkeypatch.chdir(tmp_path / "own")
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    net = ["arch=custom", "arch._target_=of_my_own.Net", "recipe.base_width=5", "init=default", "dataset.size=20"]
    run = run_in(tmp_path / "run", *net, "steps=1", "probe=[]", "device=cpu")
    call("probe", run, "probe=rate", f"hydra.searchpath=[{tmp_path / 'own'}]", "--out", "out")
    assert read(tmp_path / "own" / "out")["rate_lr"].tolist() == ["0.3"]


def test_bad_input(tmp_path: Path, refused: Callable[..., str]) -> None:
    run = run_in(tmp_path / "run", *MLP, *SNAPSHOTS, "probe=snapshot")
    assert "no .hydra/config.yaml" in refused("probe", tmp_path, "probe=split")
    assert "name the probes by probe=[…]" in refused("probe", run, "probe.split.per=layer")
    assert "found width=3" in refused("probe", run, "probe=split", "width=3")
    assert "probe should be one of alignment, density, " in refused("probe", run, "probe=nothing")
    assert "unknown key probe.split.x" in refused("probe", run, "probe=split", "probe.split.x=1")
    assert "should be one of 0, 5, 10, 12" in refused("probe", run, "probe=split", "--steps", 5, 6)
    assert "found tpu" in refused("probe", run, "probe=split", "--device", "tpu", "--out", tmp_path / "out")
    assert "should be a new or empty folder" in refused("probe", run, "probe=split", "--out", run)
    assert not (tmp_path / "out").exists()
    for path in run.glob("checkpoint*.pt"):
        path.unlink()
    for path in (run / "snapshot").iterdir():
        path.unlink()
    assert "should hold snapshots (probe=snapshot) or a checkpoint" in refused("probe", run, "probe=split")


def test_buffers_that_the_forward_pass_moves(tmp_path: Path, call: Callable[..., list[str]]) -> None:
    own = ["arch=custom", "arch._target_=test_function.Counting", "init=default", "dataset.size=20", "device=cpu"]
    run = run_in(tmp_path / "run", *own, *SNAPSHOTS, "probe=[hvp,split,snapshot]")
    call("probe", run, "probe=[hvp,split]", "--out", tmp_path / "out")
    columns = ["train_loss", "grad_norm", "hvp_gHg", "split_gHg"]
    found = read(tmp_path / "out")
    assert found["step"].tolist() == ["0", "5", "10", "12"]
    assert found[columns].equals(read(run)[columns])
