"""How far the host runs ahead of the device, and what waits on the device until the host looks at it.

A host that reads a number at every step waits for the device to finish the step, and then the device waits for the host
to prepare the next one. Here the host prepares a block of steps before it reads what they have measured.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from runner import updating
from runner.cells import Cell, Cells
from runner.closure import needs_closure
from runner.experiment import Experiment
from runner.probe.base import Probe

ASYNCHRONOUS = ("cuda",)  # devices that go on working while the host does something else
BLOCK_SECONDS = 0.5  # about as long do rows, signals and checkpoints wait
MOST_STEPS = 1000

Action = Callable[[Cells], object]


class Then(Protocol):
    """Takes what is to be done with cells, now or when they have arrived on the host, in the order in which it came."""

    def __call__(self, action: Action, cells: Cells) -> None: ...


def at_once(action: Action, cells: Cells) -> None:
    action(cells)


class Waiting:
    """Cells that are still on the device, and what is to be done with them."""

    def __init__(self) -> None:
        self._todo: list[tuple[Action, Cells]] = []

    def then(self, action: Action, cells: Cells) -> None:
        self._todo.append((action, cells))

    def arrive(self) -> list[Cells]:
        """Bring all of them to the host, by one transfer for each dtype."""
        cells = [cell for _, row in self._todo for cell in row.values()]
        there = {id(cell): cell for cell in cells if isinstance(cell, Tensor) and cell.device.type != "cpu"}
        here: dict[int, Cell] = dict(zip(there, on_host(list(there.values())), strict=True))
        self._todo = [(do, {name: here.get(id(cell), cell) for name, cell in row.items()}) for do, row in self._todo]
        return [row for _, row in self._todo]

    def act(self) -> None:
        """Do what is to be done."""
        for action, cells in self._todo:
            action(cells)
        self._todo = []


def on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies, by one transfer for each dtype."""
    found: dict[int, Tensor] = {}
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.detach().flatten() for tensor in alike]).cpu()
        for tensor, part in zip(alike, flat.split([tensor.numel() for tensor in alike]), strict=True):
            found[id(tensor)] = part.view(tensor.shape)
    return [found[id(tensor)] for tensor in tensors]


class Pace:
    """How many steps are prepared before the host looks at them: one, where it has to know what came of a step before
    it can begin the next, or where there is nothing to gain."""

    def __init__(self, run: Experiment) -> None:
        self._run, self._length = run, 1
        decides = run.networks.stacked or run.until_grad_norm is not None or run.schedule.measures is not None
        self._ahead = run.device.type in ASYNCHRONOUS and not decides and not needs_closure(run.optimizer)

    def block(self, step: int, due: Callable[[int], Sequence[str]]) -> range:
        """The steps to take now, from `step` on: the last one of a run, and one at which a probe that is `due` writes
        into a file of its own, by themselves."""
        if not self._ahead or step == self._run.steps:
            return range(step, step + 1)
        end = step
        while end < min(step + self._length, self._run.steps) and not self._writes(due(end)):
            end += 1
        return range(step, max(end, step + 1))

    def _writes(self, probes: Sequence[str]) -> bool:
        found = [self._run.probes[name] for name in probes]
        return any(probe.table or type(probe).files is not Probe.files for probe in found)

    def took(self, steps: int, seconds: float) -> None:
        """The last block was of so many steps, and took so long. All ranks go at the pace of the first."""
        if self._ahead:
            fitting = min(MOST_STEPS, max(1, int(steps * BLOCK_SECONDS / max(seconds, 1e-9))))
            self._length = int(self._run.ranks.of_first(torch.tensor(fitting)))


class Kept:
    """The state at the start of a block, to which a run goes back if its network turns out to have diverged in it."""

    def __init__(self, run: Experiment) -> None:
        self._run = run
        probes = {name: probe.state() for name, probe in run.probes.items()}
        state = {"model": run.networks.state(), "optimizer": run.optimizer.state_dict(), "probes": probes}
        self._state = copy.deepcopy(state)

    def restore(self) -> None:
        run, state = self._run, self._state
        run.networks.load(state["model"], run.networks.ids, run.optimizer)
        updating.restore(run.optimizer, state["optimizer"])
        for name, probe in run.probes.items():
            probe.load(state["probes"][name])
