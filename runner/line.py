"""The loss along the straight line between two networks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from runner.curvature import randomness
from runner.dataset.batches import Batch
from runner.experiment import Experiment
from runner.reload import take_up

State = Mapping[str, Tensor]


class Samples(NamedTuple):
    """What the losses are taken over, in parts."""

    train: list[Batch]
    test: list[Batch]


def samples_of(run: Experiment, count: int) -> Samples:
    """At most so many training samples, without augmentation, and test samples, in parts of the batch size."""
    size = run.batches.batch_size or run.batches.size
    train = run.batches.sample(count)
    parts = strided(train.inputs, train.labels, size)
    if not run.batches.has_test:
        return Samples(parts, [])
    every = -(-sum(len(batch) for batch in run.batches.test()) // count)
    firsts = [batch.first(1) for batch in run.batches.test(every)]
    test = torch.cat([one.inputs for one in firsts]), torch.cat([one.labels for one in firsts])
    return Samples(parts, strided(*test, size))


def strided(inputs: Tensor, labels: Tensor, size: int) -> list[Batch]:
    """Parts of `size` samples or a few more; each takes every k-th, so that no order in the data makes them differ."""
    k = max(1, len(labels) // size)
    return [Batch(inputs[i::k], labels[i::k]) for i in range(k)]


def walk(run: Experiment, a: State, b: State, alphas: Sequence[float], samples: Samples) -> Iterator[dict[str, float]]:
    """For each alpha the losses and errors of w(alpha) = (1 - alpha) w_A + alpha w_B, and distance = |w_B - w_A|.

    a, b: parameters and buffers by name, on the CPU. The training loss is that of training mode, with the same random
    draws everywhere. The running statistics of a batch norm mean nothing between two networks: they are gathered anew
    from the training samples at each point, as plain means over the parts, and the test loss uses these.
    """
    apart = [torch.linalg.vector_norm(b[name].double() - a[name].double()) for name, _ in run.model.named_parameters()]
    distance = float(torch.stack(apart).norm())
    for alpha in alphas:
        take_up(run.model, between(a, b, alpha))
        yield {"alpha": alpha, **losses(run, samples), "distance": distance}


def between(a: State, b: State, alpha: float) -> State:
    """The network at alpha, exact at 0 and 1; counters are those of a."""
    return {
        name: torch.lerp(entry, b[name], alpha) if entry.is_floating_point() else entry for name, entry in a.items()
    }


@torch.no_grad()
def losses(run: Experiment, samples: Samples) -> dict[str, float]:
    """Of the run's network as it is; its running statistics are replaced."""
    with randomness.preserved(run.device):
        run.seed_draws(0)
        forget_statistics(run.model)
        run.model.train()
        found = means(run, samples.train, "train")
        run.model.eval()
        return found | means(run, samples.test, "test")


def forget_statistics(model: nn.Module) -> None:
    """Let every batch norm's running statistics become the plain mean over the passes that follow."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_running_stats()
            module.momentum = None


def means(run: Experiment, batches: Sequence[Batch], prefix: str) -> dict[str, float]:
    """Loss and error over all samples, in the mode that the network is in; nothing without samples."""
    loss = wrong = torch.zeros((), dtype=torch.float64, device=run.device)
    for batch in batches:
        outputs = run.outputs(batch)
        loss = loss + run.losses(outputs, batch).double() * len(batch)
        wrong = wrong + run.errors(outputs, batch) * len(batch)
    count = sum(map(len, batches))
    return {f"{prefix}_loss": float(loss) / count, f"{prefix}_error": float(wrong) / count} if count else {}
