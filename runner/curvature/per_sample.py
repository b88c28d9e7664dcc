"""How the gradients of single samples lie to each other."""

import torch
from torch import Tensor

from runner.curvature.batch_loss import BatchLoss, gradient
from runner.curvature.precision import exact_arithmetic


def per_sample_gradients(loss: BatchLoss, sample: int) -> Tensor:
    """(sample, n): the gradients of l(F_i, y_i), i = 0 … sample-1, through the batch's own forward pass.

    Under batch norm F_i depends on the whole batch; the gradient is then that of the sample's share of the batch loss.
    """
    with exact_arithmetic(loss.device), torch.enable_grad():
        leaves = loss.leaves()
        outputs = loss.outputs(leaves)
        rows = []
        for i in range(min(sample, len(outputs))):
            one = loss.of_outputs(outputs[i : i + 1], loss.targets[i : i + 1])
            g = gradient(one, leaves, retain_graph=True)
            rows.append(torch.cat([entry.flatten() for entry in g.values()]))
    return torch.stack(rows)


def mean_cosine(rows: Tensor) -> Tensor:
    """The mean cosine over pairs of different rows of (m, n), a 0-d tensor: (|sum u_i|^2 - m) / (m (m - 1)) with unit
    rows u_i. Rows of zeros have no direction and are left out; nan where fewer than two remain."""
    lengths = torch.linalg.vector_norm(rows, dim=1)
    units = rows[lengths > 0] / lengths[lengths > 0, None]
    m = len(units)
    if m < 2:
        return rows.new_full((), float("nan"))
    return (units.sum(0).square().sum() - m) / (m * (m - 1))
