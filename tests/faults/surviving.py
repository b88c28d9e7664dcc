"""Runs to disturb, and what has to be the same afterwards."""

import json
from pathlib import Path

import torch

import runner
from runner import checkpoint

ALWAYS = "checkpoint_minutes=1e-9"  # a checkpoint at every step
SMALL = ["dataset.size=60", "arch.depth=3", "arch.base_width=6", "device=cpu", ALWAYS]
LONG = [
    *SMALL, "batch_size=20", "optimizer=adam", "probe=[split,spectrum,snapshot]", "probe.spectrum.every=3",
    "probe.snapshot.every=2",
]  # fmt: skip
SETTINGS = {
    "minibatches": [*LONG, "steps=9"],
    "replicas": [
        "dataset=blobs", "replicas=4", "until.grad_norm=0.2", "steps=30", "log_every=3", "device=cpu", ALWAYS,
        "probe=hessian", "probe.hessian.save=true", "probe.hessian.matrices=[H]",
    ],
    "convolutions": [
        "dataset=random_images", "dataset.size=50", "dataset.shape=[3,8,8]", "dataset.classes=4", "arch=resnet50",
        "arch.blocks=1", "arch.base_width=4", "batch_size=12", "optimizer=momentum", "steps=6", "log_every=1",
        "probe=split", "device=cpu", ALWAYS,
    ],
}  # fmt: skip
OF_ITS_OWN = {".lock", "meta.json", "run.log", ".hydra", checkpoint.NAME, checkpoint.PREVIOUS}  # not the same bytes


def run_in(folder: Path, *overrides: str) -> Path:
    return runner.run([*overrides, f"hydra.run.dir={folder}"])


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    """All that a run leaves and that repeats, by name."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items() if name.parts[0] not in OF_ITS_OWN}


def same(one: Path, other: Path) -> None:
    """The same files with the same bytes, and nothing half-written."""
    found, expected = files(one), files(other)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert not [*one.rglob("*.tmp"), *other.rglob("*.tmp")]
    states = [checkpoint.load(folder) for folder in (one, other)]
    assert [complaints for _, complaints in states] == [[], []]
    assert_equal(*(state for state, _ in states))


def assert_equal(one: object, other: object) -> None:
    if isinstance(one, dict):
        assert isinstance(other, dict)
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)  # type: ignore[arg-type]
    else:
        assert one == other


def sentence(said: Path) -> str:
    """The one sentence of a run that was refused."""
    text = said.read_text()
    assert "Traceback" not in text
    assert text.startswith("runner: ")
    assert text.count("\n") == 1
    return text
