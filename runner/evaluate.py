"""Loss and error on the test set."""

import torch
from torch import Tensor

from runner.build import Experiment


@torch.no_grad()
def evaluate(run: Experiment) -> dict[str, Tensor]:
    """`test_loss` and `test_error`, means over the samples, 0-d tensors, of the network in evaluation mode; nothing for
    data without a test set."""
    loss = wrong = torch.zeros((), dtype=torch.float64, device=run.device)
    samples = 0
    run.model.eval()
    for batch in run.batches.test():
        outputs = run.forward(batch.inputs)
        count = len(batch.labels)
        loss = loss + run.loss_fn(outputs, run.targets(batch)).double() * count
        wrong = wrong + run.task.wrong(outputs, batch.labels).sum()
        samples += count
    run.model.train()
    return {"test_loss": loss / samples, "test_error": wrong / samples} if samples else {}
