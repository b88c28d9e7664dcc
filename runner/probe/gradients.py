"""How orthogonal the gradients of single samples are."""

from dataclasses import dataclass

from torch import Tensor

from runner.curvature.batch_loss import BatchLoss
from runner.curvature.per_sample import mean_cosine, per_sample_gradients
from runner.errors import BadInput
from runner.probe.base import Point, Probe


@dataclass(kw_only=True)
class Gradients(Probe):
    """cosine: the mean cosine between the gradients of different samples, over the batch's first `sample` samples; nan
    where fewer than two of them have a gradient, empty in a batch of one sample, as an epoch's last may be."""

    names = ("cosine",)
    streams = False

    sample: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample < 2:
            raise BadInput(f"sample should be at least 2 (cosines are between pairs), found {self.sample}")

    def prepare(self, loss: BatchLoss, samples: int, measurements: int) -> None:
        if samples < 2:
            raise BadInput(f"batch_size should be at least 2 (cosines are between pairs of samples), found {samples}")

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        assert isinstance(point.loss, BatchLoss)
        rows = per_sample_gradients(point.loss, self.sample)
        return {"cosine": mean_cosine(rows) if len(rows) > 1 else None}
