"""Loss and error on the test set."""

from collections.abc import Sequence

import torch

from runner.cells import Cells, joined
from runner.experiment import Experiment
from runner.networks import Rows


@torch.no_grad()
def evaluate(run: Experiment, rows: Sequence[int] | None = None) -> Cells:
    """`test_loss` and `test_error`, means over the samples, 0-d tensors or (R,), of the network, or of these rows of
    the stack, in evaluation mode; nothing for data without a test set."""
    run.model.eval()
    found = joined([_evaluate(run, part) for part in run.networks.parts(rows)])
    run.model.train()
    return run.ranks.total(found)


def _evaluate(run: Experiment, rows: Rows) -> Cells:
    loss = wrong = torch.zeros((), dtype=torch.float64, device=run.device)
    samples = run.batches.test_size
    for batch in run.batches.test():
        outputs = run.outputs(batch, rows)
        loss = loss + run.losses(outputs, batch).double() * len(batch)
        wrong = wrong + run.errors(outputs, batch) * len(batch)
    return {"test_loss": loss / samples, "test_error": wrong / samples} if samples else {}
