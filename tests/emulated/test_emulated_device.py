"""Runs on another device than the CPU: the files are those of the CPU, no operation gets tensors of two devices, and
the host waits for the device once in a block of steps. The device is emulated (device.cpp): there need not be a GPU."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import runner

HERE = Path(__file__).parent
MLP = ["dataset.size=60", "arch.depth=3", "arch.base_width=6", "precision=fp64"]
CONV = [
    "dataset=random_images", "dataset.size=26", "dataset.shape=[3,8,8]", "dataset.classes=4", "dataset.test_size=9",
    "arch=resnet50", "arch.blocks=1", "arch.base_width=4", "batch_size=10", "eval_every=2", "precision=fp64",
]  # fmt: skip
PLACES = [f"probe.{probe}.on=[batch,heldout,sample,dataset]" for probe in ("fd", "hvp", "split", "products")]
SAMPLES = [f"probe.{probe}.samples=17" for probe in ("fd", "hvp", "split", "products")]
ALL = (
    "probe=[fd,hvp,split,gradients,products,hessian,spectrum,density,trace,alignment,output_curvature,layer_norms,"
    "snapshot]"
)
QUICK = ["probe.spectrum.k=2", "probe.alignment.k=1", "probe.density.steps=9", "probe.trace.products=12"]

RUNS: dict[str, list[str]] = {
    "every probe": [*MLP, "steps=2", ALL, "probe.split.per=layer", "probe.fd.mu=[lr,1e-3]", *QUICK],
    "minibatches": [*MLP, "steps=9", "batch_size=25", "optimizer=momentum", "clip_norm=0.1", "probe.split.chunk=2"],
    "places": [*CONV, "steps=4", "arch.norm=group", "probe=[fd,hvp,split,products]", *PLACES, *SAMPLES],
    "batch norm": [*CONV, "steps=9", "arch.norm=batch", "optimizer=adam", "schedule=cosine", "log_every=2"],
    "bottleneck": [
        *CONV,
        "steps=3",
        "arch=resnet_bottleneck50",
        "arch.blocks=[1,1]",
        "probe=[split,spectrum]",
        QUICK[0],
    ],
    "replicas": [*MLP, "steps=6", "replicas=4", "batch_size=25", "optimizer=adam", "clip_norm=0.1", ALL, *QUICK],
    "until": [*MLP, "steps=6", "replicas=4", "until.grad_norm=0.4", "probe=[fd,hvp]"],
    "curvature": [*MLP, "steps=6", "schedule=curvature"],
    "target": [*MLP, "steps=6", "schedule=target_curvature", "batch_size=25"],
    "closures": [*MLP, "steps=6", "optimizer=lbfgs"],
    "least squares": [*MLP, "steps=6", "optimizer=levenberg_marquardt"],
    "recurrent": ["experiment=landscape_count_rnn", "scale=small", "steps=3"],
    "diverging": [*MLP, "steps=50", "optimizer.lr=1e4", "arch.activation=relu"],
}
LONGER = {  # once and again with twice the steps, which are taken ahead of the device
    "plain": [*MLP, "probe=[]"],
    "measured": [*MLP, "probe=[fd,hvp,split]", "optimizer=momentum", "schedule=cosine"],
    "network": [*CONV, "batch_size=null", "eval_every=1000", "arch.norm=batch", "probe=[]", "optimizer=adam"],
}
STEPS = (40, 80)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs on the emulated device, and of `waits.json`."""
    if missing := [tool for tool in ("c++", "ninja") if shutil.which(tool) is None]:
        pytest.skip(f"needs {missing[0]} to build the device")
    place = tmp_path_factory.mktemp("emulated")
    (place / "build").mkdir()
    jobs = {str(place / name): overrides for name, overrides in RUNS.items()}
    jobs |= {str(place / f"{name}-{n}"): [*given, f"steps={n}"] for name, given in LONGER.items() for n in STEPS}
    command = [sys.executable, str(HERE / "run.py"), str(place / "build")]
    ended = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, cwd=place)
    assert ended.returncode == 0, ended.stderr[-4000:]
    (place / "waits.json").write_text(ended.stdout.splitlines()[-1])
    return place


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_the_files_are_those_of_the_cpu(tmp_path: Path, place: Path, name: str) -> None:
    alone = runner.run([*RUNS[name], "device=cpu", f"hydra.run.dir={tmp_path / 'run'}"])
    tables = sorted(path.name for path in alone.glob("*.csv"))
    assert sorted(path.name for path in (place / name).glob("*.csv")) == tables
    for table in tables:
        found, expected = (pd.read_csv(folder / table) for folder in (place / name, alone))
        pd.testing.assert_frame_equal(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONGER)
def test_the_host_waits_once_a_block(place: Path, name: str) -> None:
    waits = json.loads((place / "waits.json").read_text())
    few, many = (waits[str(place / f"{name}-{n}")] for n in STEPS)
    blocks = (STEPS[1] - STEPS[0]) // 20
    assert many - few <= 2 * blocks, "for the floats and for the integers of a block"
