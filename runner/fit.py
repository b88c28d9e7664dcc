"""Do network, loss, data, optimizer, schedule and probes fit together? A few samples tell, before any work."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from runner import closure
from runner.curvature import randomness
from runner.curvature.batch_loss import BatchLoss, gradient
from runner.curvature.functional import NotAFunction, with_buffers
from runner.curvature.trust import asymmetry, imbalance, misfits
from runner.curvature.vectors import Vector, norm
from runner.dataset.batches import Batch, Batches
from runner.errors import BadInput
from runner.experiment import Experiment
from runner.probe.base import Probe

CHECKED_SAMPLES = 4
IN_FP64 = 1e-13  # asymmetry of a Hessian: rounding is 1e-17; a network that casts to fp32 on its way has up to 1e-7
ASYMMETRY, IMBALANCE, MISFIT = 1e-6, 1e-5, 1e-3  # of what is no second derivative


def check(run: Experiment) -> None:
    """Raises BadInput for whatever does not fit."""
    check_data(run)
    check_training(run)
    if run.networks.stacked:
        check_side_by_side(run)
    else:
        check_function(run)
    closure.check(run)
    check_schedule(run)
    prepare_probes(run)


@contextmanager
def refused(words: str) -> Iterator[None]:
    """An error inside is one sentence: `words`, and what the network says."""
    try:
        yield
    except NotAFunction as error:
        raise BadInput(f"{error.key}: {error}") from error
    except Exception as error:
        raise BadInput(f"{words}: {error}") from error


def check_places(probes: dict[str, Probe], batches: Batches) -> None:
    """Are there the data, besides the training batch, that the probes look at?"""
    for name, probe in probes.items():
        if "heldout" in probe.on:
            batches.require_heldout(name)
        if "sample" in probe.on:
            batches.require_sample(name, probe.samples)


def check_data(run: Experiment) -> None:
    """A small forward pass in evaluation mode, and a loss."""
    first = run.batches(0).first(2).rows(run.networks.first)
    run.model.eval()
    try:
        with refused(f"arch: the network cannot take inputs of shape {tuple(first.inputs.shape)}"), torch.no_grad():
            loss = run.batch_loss(first, 0, run.dtype, run.networks.first)
            outputs = loss.outputs(loss.weights)
    finally:
        run.model.train()
    run.task.check(outputs, first.labels)


def check_training(run: Experiment) -> None:
    """A gradient in training mode, of as few samples as the last batch of an epoch has."""
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    loss = few_samples(run)
    count = loss.samples
    advice = " (the last batch of an epoch is this small: choose another batch_size)" if count == 1 else ""
    with refused(f"arch: the network cannot be trained on a batch of {count} samples{advice}"):
        loss.gradient()
    written = [name for name, p in run.model.named_parameters() if not torch.equal(p.detach(), before[name])]
    if written:
        raise BadInput(f"arch: the network should not write to its parameters in a forward pass, found {written}")
    if not loss(loss.leaves()).requires_grad:
        raise BadInput("arch: the loss should depend on the network's parameters, found one that depends on none")


def check_function(run: Experiment) -> None:
    """Is what the probes measure the loss that is trained? Not where the network keeps parameters or a state outside of
    its modules', or draws random numbers elsewhere than by torch's global generators."""
    loss, model = few_samples(run), run.model
    trained: Vector = {name: p for name, p in model.named_parameters() if p.requires_grad}
    buffers = {name: one.clone() for name, one in model.named_buffers()}
    with refused("arch: the network cannot be trained"), randomness.preserved(run.device), randomness.only_of_torch():
        expected = loss.gradient()
        for _ in range(2):  # what the network counts, or keeps otherwise beside its buffers, has then moved on
            randomness.restore(loss.draws, run.device)
            with with_buffers(model, {name: one.clone() for name, one in buffers.items()}):
                found = gradient(loss.of_outputs(model(loss.inputs)), trained)
    size = norm(expected)
    far = [name for name, g in found.items() if (g - expected[name]).norm() > 1e-2 * size]
    if far:
        raise BadInput(
            "arch: the loss should be a function of the network's parameters and buffers, and of draws from torch's "
            f"global generators; at the same of all these found two gradients of {far[0]}"
        )


def check_side_by_side(run: Experiment) -> None:
    """Can the networks be computed at once, and how many?"""
    batch = run.batches(0)
    with refused(
        "replicas: this network or loss cannot be computed side by side, as one that draws random numbers cannot; use "
        "a sweep over seeds"
    ):
        run.batch_loss(batch.first(2), 0, run.dtype, slice(0, 2)).gradient()
    if far := differs_side_by_side(run, batch.first(2)):
        raise BadInput(
            f"replicas: the network should have one gradient side by side and alone, found two of {far}; use a sweep "
            "over seeds"
        )
    loss = few_samples(run)
    run.networks.find_unused(loss)
    run.networks.choose_at_once(loss, len(batch))


def differs_side_by_side(run: Experiment, batch: Batch) -> str | None:
    """A parameter whose gradient is another than where the network is alone. In fp64, since rounding alone may be all
    that batch norm of two samples gives; None where the network does not run in it."""
    try:
        together, alone = (pulled_back(run.batch_loss(batch, 0, torch.float64, rows)) for rows in (slice(0, 2), 0))
    except Exception:
        return None
    size = norm(alone)
    return next((name for name, g in alone.items() if (together[name][0] - g).norm() > 1e-2 * size), None)


def pulled_back(loss: BatchLoss) -> Vector:
    """J'u for one random u. Unlike the loss's gradient it does not vanish where the data are fit."""
    leaves = loss.leaves()
    with torch.enable_grad():
        outputs = loss.outputs(leaves)
        u = torch.randn(outputs.shape[int(loss.stacked) :], generator=torch.Generator().manual_seed(0)).to(outputs)
        return gradient((outputs * u).sum(), leaves)


def few_samples(run: Experiment, dtype: torch.dtype | None = None) -> BatchLoss:
    """The loss, in training mode, of as many samples as the smallest batch of an epoch has, four at most; of the first
    network, if there are several. `dtype`: other than the run's."""
    smallest = min(len(run.batches(step)) for step in (0, run.batches.steps_per_epoch - 1))
    few = run.batches(0).first(min(smallest, CHECKED_SAMPLES))
    return run.batch_loss(few, 0, dtype or run.dtype, run.networks.first)


def check_schedule(run: Experiment) -> None:
    """A rate that follows from the curvature along g is one for steps along g, and for one network."""
    if run.schedule.measures is None:
        return
    name, optimizer = type(run.schedule).__name__, run.optimizer
    if run.networks.stacked:
        raise BadInput(
            f"replicas should be 1 with the schedule {name}, since one optimizer has one rate for all of them, found "
            f"{len(run.networks.ids)}; use a sweep over seeds"
        )
    keys = {
        key: value for key in ("momentum", "weight_decay", "maximize") if (value := optimizer.param_groups[0].get(key))
    }
    if type(optimizer) is not torch.optim.SGD or keys:
        found = ", ".join([type(optimizer).__name__, *(f"{key}={value:g}" for key, value in keys.items())])
        raise BadInput(
            f"optimizer should be sgd without momentum, weight decay and maximize with the schedule {name}, whose rate "
            f"is for steps down the gradient, found {found}"
        )
    if run.clip_norm is not None:
        raise BadInput(
            f"clip_norm should be null with the schedule {name}, whose rate is for the whole gradient, found "
            f"{run.clip_norm}; schedule.largest bounds the rate"
        )
    if not run.rates[0] > 0:
        raise BadInput(f"optimizer.lr should be a number > 0, where the schedule {name} starts, found {run.rates[0]}")


def prepare_probes(run: Experiment) -> None:
    """Can each probe, and what the schedule measures, measure this network, as far as a few samples tell?"""
    loss = few_samples(run)
    whole = run.batches.samples(0)
    largest = -(-whole // run.ranks.count)  # the same for all ranks, so that they choose the same
    probes = {f"probe.{name}": probe for name, probe in run.probes.items()}
    if run.schedule.measures is not None:
        probes["schedule"] = run.schedule.measures
    for path, probe in probes.items():
        planned = probe.cadence.count(run.batches.steps_per_epoch, run.steps)
        try:
            probe.prepare(loss, largest if probe.streams else whole, planned)
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from error
    if twice := [path for path, probe in probes.items() if probe.double_backward]:
        check_second_derivatives(run, twice[0])


def check_second_derivatives(run: Experiment, path: str) -> None:
    """Is what double backward gives symmetric, and the sum of its parts, and do a user's own autograd functions have
    the second derivative that follows from their first? `path`: of a probe that needs it."""
    try:
        loss = few_samples(run, torch.float64)
        off, apart = asymmetry(loss), imbalance(loss)
    except Exception:  # not in fp64, or not twice: the measurement itself will say so
        return
    if off > ASYMMETRY:
        raise BadInput(
            f"{path}: the network's Hessian should be symmetric, found u'Hv and v'Hu that differ by {off:.1g} of "
            "|u||Hv|: something in it cannot be differentiated twice by autograd; probe=split does without"
        )
    if apart > IMBALANCE:
        raise BadInput(
            f"{path}: the network's Hessian should be G + H_r, found u'Hu that differs from u'Gu + u'H_r u by "
            f"{apart:.1g} of them: something in it cannot be differentiated twice by autograd; choose probe=fd"
        )
    for name, share in (misfits(loss) if off < IN_FP64 else {}).items():  # in fp32 a difference tells too little
        if share > MISFIT:
            raise BadInput(
                f"{path}: the second derivative of the autograd function {name} should be that of its first, found one "
                f"that is off by {share:.1g} of itself: its backward pass takes for a constant what is none; write it "
                "with ctx.save_for_backward and without detach, or choose probe=fd"
            )
