"""Every column of metrics.csv, recomputed in plain float64 autograd along a few steps of training.

The oracle takes network, data and batches as the builder makes them, and computes everything else by itself.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import Tensor
from torch.func import functional_call

import runner
from runner.build import Experiment, build
from runner.config import CONF_DIR
from runner.loss import Brier

BASE = ["precision=fp64", "device=cpu", "log_every=1", "probe=[fd,hvp,split,gradients]"]
HELDOUT = [f"probe.{name}.on=[batch,heldout]" for name in ("fd", "hvp", "split", "gradients")]
MLP = ["dataset.size=40", "dataset.test_size=13", "batch_size=15", "arch.depth=3", "arch.base_width=6", *HELDOUT]
CONV = [
    "dataset=random_images", "dataset.size=33", "dataset.test_size=11", "dataset.shape=[3,8,8]", "dataset.classes=4",
    "arch=resnet50", "arch.blocks=1", "arch.base_width=4", "arch.activation=softplus", "batch_size=10", *HELDOUT,
]  # fmt: skip
SEQUENCES = [
    "dataset=random_images", "dataset.size=33", "dataset.test_size=11", "dataset.shape=[2,4,3]", "dataset.classes=4",
    "arch=rnn", "arch.base_width=6", "batch_size=10", *HELDOUT,
]  # fmt: skip
DECAY = ["optimizer=momentum", "optimizer.weight_decay=0.01", "clip_norm=0.05", "eval_every=2"]
SETTINGS = {
    "decay, clipping": [*MLP, "arch.activation=tanh", "arch.norm=batch", *DECAY],
    "next batch": [*MLP, "arch.activation=softplus", "probe.fd.form=next_batch", "schedule=cosine"],
    "loss form": [*MLP, "arch.activation=gelu", "probe.fd.form=loss", "dataset.labels=[2.0,-1.0]"],
    "conv": CONV,
    "recurrent, Brier": [*SEQUENCES, "loss=brier", "loss.label_smoothing=0.2"],
    "conv, next batch": [*CONV, "probe.fd.form=next_batch", "optimizer=adam"],
}
STEPS = 5


class Oracle:
    """The run's own network and batches, and nothing of its measuring."""

    def __init__(self, run: Experiment, form: str) -> None:
        self.run, self.form = run, form
        self.names = [name for name, _ in run.model.named_parameters()]
        run.model.train()

    def weights(self) -> list[Tensor]:
        return [p.detach().clone().requires_grad_() for p in self.run.model.parameters()]

    def outputs(self, w: list[Tensor], batch: Any) -> Tensor:
        own = {name: buffer.clone() for name, buffer in self.run.model.named_buffers()}
        return functional_call(self.run.model, {**dict(zip(self.names, w, strict=True)), **own}, (batch.inputs,))

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        if isinstance(self.run.loss_fn, Brier):
            q = 0.8 * torch.eye(outputs.shape[1], dtype=torch.float64)[labels] + 0.2 / outputs.shape[1]
            p = outputs.exp() / outputs.exp().sum(1, keepdim=True)
            return 0.5 * ((p - q) ** 2).sum() / len(labels)
        if self.run.task.values is None:
            return F.cross_entropy(outputs, labels)
        values = torch.tensor(self.run.task.values, dtype=torch.float64)
        return 0.5 * ((outputs[:, 0] - values[labels]) ** 2).sum() / len(labels)

    def wrong(self, outputs: Tensor, labels: Tensor) -> float:
        if self.run.task.values is None:
            return (outputs.argmax(1) != labels).double().mean().item()
        low, high = self.run.task.values
        nearer_high = (outputs[:, 0] - high).abs() < (outputs[:, 0] - low).abs()
        return (nearer_high.long() != labels).double().mean().item()

    def gradient(self, w: list[Tensor], batch: Any) -> list[Tensor]:
        return list(torch.autograd.grad(self.loss(self.outputs(w, batch), batch.labels), w, create_graph=True))

    def along(self, w: list[Tensor], g: list[Tensor], batch: Any, lr: float, following: Any) -> dict[str, Tensor]:
        """All that probes say of one batch, along g."""
        own = self.gradient(w, batch)
        Hg = torch.autograd.grad(inner(own, g), w)
        moved = [(p - lr * q).detach().requires_grad_() for p, q in zip(w, g, strict=True)]
        there = self.gradient(moved, following if self.form == "next_batch" else batch)
        estimate = inner([p - q for p, q in zip(own, there, strict=True)], g) / lr
        if self.form == "loss":
            losses = [self.loss(self.outputs(point, batch), batch.labels) for point in (moved, w)]
            estimate = 2 * (losses[0] - losses[1] + lr * inner(own, g)) / lr**2
        gGg = self.gauss_newton(w, g, batch)
        norms = inner(g, g).sqrt(), inner(Hg, Hg).sqrt()
        return {
            "fd_gHg": estimate, "fd_decorrelated": inner(own, g) / lr, "hvp_gHg": inner(Hg, g),
            "hvp_Hg_norm": norms[1], "hvp_Hg_cosine": inner(Hg, g) / norms[0] / norms[1],
            "split_gHg": inner(Hg, g), "split_gGg": gGg, "split_gHrg": inner(Hg, g) - gGg,
            "gradients_cosine": self.cosine(w, batch),
        }  # fmt: skip

    def gauss_newton(self, w: list[Tensor], g: list[Tensor], batch: Any) -> Tensor:
        """J g row by row, one backward pass an output, and the Hessian of the loss in the outputs as a matrix."""
        outputs = self.outputs(w, batch)
        Jg = torch.stack([inner(torch.autograd.grad(f, w, retain_graph=True), g) for f in outputs.flatten()])
        curvature = torch.autograd.functional.hessian(
            lambda f: self.loss(f.view_as(outputs), batch.labels), outputs.detach().flatten()
        )
        return Jg @ curvature @ Jg

    def cosine(self, w: list[Tensor], batch: Any) -> Tensor:
        outputs, units = self.outputs(w, batch), []
        for i in range(len(batch.labels)):
            one = torch.autograd.grad(self.loss(outputs[i : i + 1], batch.labels[i : i + 1]), w, retain_graph=True)
            units.append(F.normalize(torch.cat([entry.flatten() for entry in one]), dim=0))
        pairs = [units[i] @ units[j] for i in range(len(units)) for j in range(len(units)) if i != j]
        return torch.stack(pairs).mean()

    def test(self) -> dict[str, float]:
        inputs = torch.cat([batch.inputs for batch in self.run.batches.test()])
        labels = torch.cat([batch.labels for batch in self.run.batches.test()])
        self.run.model.eval()
        with torch.no_grad():
            outputs = self.run.model(inputs)
        self.run.model.train()
        return {"test_loss": self.loss(outputs, labels).item(), "test_error": self.wrong(outputs, labels)}


def inner(a: Any, b: Any) -> Tensor:
    return torch.stack([(p * q).sum() for p, q in zip(a, b, strict=True)]).sum()


def rows(overrides: list[str]) -> list[dict[str, float]]:
    """The rows that the run should have written."""
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        cfg = compose("config", overrides=overrides)
    run = build(cfg)
    oracle, found = Oracle(run, cfg.probe.fd.form), []
    for step in range(STEPS + 1):
        batch, w = run.batches(step), oracle.weights()
        lr = run.schedule.rate(run.rates[0], step, run.batches.steps_per_epoch)
        evaluated = step == STEPS or (step > 0 and step % run.eval_every == 0)
        row: dict[str, Any] = oracle.test() if evaluated else {}
        outputs = run.model(batch.inputs)
        loss = oracle.loss(outputs, batch.labels)
        run.optimizer.zero_grad()
        loss.backward()
        g = [p.grad.clone() for p in run.model.parameters()]
        row |= {
            "train_loss": loss.detach(),
            "train_error": oracle.wrong(outputs, batch.labels),
            "grad_norm": inner(g, g).sqrt(),
        }
        for place, where in (("_", batch), ("_heldout_", run.batches.heldout(step))):
            probed = oracle.along(w, g, where, lr or 1.0, run.batches(step + 1))
            kept = {name: value for name, value in probed.items() if lr > 0 or not name.startswith("fd")}  # mu = 0
            row |= {name.replace("_", place, 1): value.detach() for name, value in kept.items()}
        found.append({name: float(value) for name, value in row.items()})
        if cfg.clip_norm:
            torch.nn.utils.clip_grad_norm_(run.model.parameters(), cfg.clip_norm)
        for group in run.optimizer.param_groups:
            group["lr"] = lr
        run.optimizer.step()
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_every_column(name: str, tmp_path: Path) -> None:
    overrides = [*BASE, *SETTINGS[name], f"steps={STEPS}"]
    folder = runner.run([*overrides, f"hydra.run.dir={tmp_path / 'run'}"])
    frame = pd.read_csv(folder / "metrics.csv")
    expected = pd.DataFrame(rows(overrides))
    given = ["step", "epoch", "replica", "lr"]
    assert set(frame.columns) == set(expected.columns) | set(given)
    for column in expected.columns:
        tolerance = 1e-6 if "fd" in column else 1e-9
        scale = expected[column].abs().max()
        assert (frame[column].isna() == expected[column].isna()).all(), column
        assert ((frame[column] - expected[column]).abs().fillna(0) <= tolerance * scale).all(), column
