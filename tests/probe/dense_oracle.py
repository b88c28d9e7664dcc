"""H, G and H_r of a run's network as matrices, by torch's own Hessian and Jacobian in float64: shares no code with what
is tested."""

from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor
from torch.func import functional_call

import runner
from runner.build import build
from runner.config import CONF_DIR

# a network of 80 weights with 12 samples of one output: G has rank 12
BASE = ["dataset.size=12", "arch.depth=4", "arch.base_width=5", "arch.activation=tanh", "device=cpu", "precision=fp64"]


def run_in(folder: Path, *overrides: str) -> Path:
    return runner.run([*BASE, *overrides, f"hydra.run.dir={folder}"])


def matrices(folder: Path | None, *overrides: str) -> dict[str, Any]:
    """H, G, H_r (n, n), g (n,) and n of the loss 1/2 (f - y)^2 over all data, at the weights that the run in `folder`
    ended with, or at its start."""
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        run = build(compose("config", overrides=[*BASE, *overrides]))
    if folder is not None:
        run.model.load_state_dict(torch.load(folder / "checkpoint.pt", weights_only=True)["model"])
    named = dict(run.model.named_parameters())
    inputs, labels = run.batches(0).inputs, run.batches(0).labels
    y = torch.tensor(run.task.values, dtype=torch.float64)[labels]

    def outputs(flat: Tensor) -> Tensor:
        parts = flat.split([p.numel() for p in named.values()])
        own = {name: part.view_as(p) for (name, p), part in zip(named.items(), parts, strict=True)}
        return functional_call(run.model, own, (inputs,))[:, 0]

    def loss(flat: Tensor) -> Tensor:
        return 0.5 * (outputs(flat) - y).square().mean()

    w = torch.cat([p.detach().flatten() for p in named.values()])
    J = torch.autograd.functional.jacobian(outputs, w)
    H, G = torch.autograd.functional.hessian(loss, w), J.T @ J / len(y)
    return {"H": H, "G": G, "H_r": H - G, "g": J.T @ (outputs(w) - y) / len(y), "n": len(w)}
