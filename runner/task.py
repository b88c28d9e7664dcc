"""What is asked of a network: how labels become the targets of a loss, and outputs become decisions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.errors import BadInput
from runner.loss import Encoding

LossFn = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """Labels (N,), int64 in 0 .. classes - 1, against `outputs` numbers for each sample. Dimensions in front are
    those of several networks side by side.

    `values`: the two real numbers that a single output is fitted to, for the labels 0 and 1; None with one
    output for each class.
    """

    loss: LossFn
    encoding: Encoding
    classes: int
    outputs: int
    values: tuple[float, float] | None

    @classmethod
    def of(
        cls,
        classes: int,
        label_values: tuple[float, float] | None,
        loss: LossFn,
        outputs: int | None = None,
    ) -> "Task":
        """The task that a data set's `classes` and `label_values` make with a loss.

        A loss says by its attribute `encoding` which targets it takes (see runner.loss); one without it takes
        class indices, but for those of PyTorch that are known to differ. A real-valued loss gets a single
        output where the data set names two label values, else one for each class, unless `outputs` says how
        many. Raises BadInput where the three do not fit.
        """
        encoding = _encoding(loss)
        single = encoding == "binary" or (encoding == "value" and label_values is not None)
        outputs = (1 if single else classes) if outputs is None else outputs
        _check_outputs(encoding, classes, outputs, loss)
        values = (label_values or (0.0, 1.0)) if encoding == "value" and outputs == 1 else None
        return cls(loss, encoding, classes, outputs, values)

    def targets(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        """The loss's targets: value (N, outputs) and binary (N, 1) in `dtype`, index (N,) int64."""
        if self.encoding == "index":
            return labels
        if self.values is not None:
            low, high = self.values
            return torch.full_like(labels, low, dtype=dtype).masked_fill(labels == 1, high)[..., None]
        if self.encoding == "binary":
            return labels[..., None].to(dtype)
        return F.one_hot(labels, self.classes).to(dtype)

    def wrong(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Which samples are decided wrongly, bool (N,), from the network's outputs (N, outputs).

        The decision is the largest output; of a single one, the nearer label value, or for a logit its sign.
        Ties go to the first class.
        """
        return self.decisions(outputs) != labels

    def decisions(self, outputs: Tensor) -> Tensor:
        """The class decided for, int64 (N,), from outputs (N, outputs)."""
        if self.outputs > 1:
            return outputs.argmax(-1)
        low, high = (0.0, 0.0) if self.values is None else self.values
        above = outputs[..., 0] > (low + high) / 2
        return (above if high >= low else ~above).long()

    def check(self, outputs: Tensor, labels: Tensor) -> None:
        """Tries the loss on a network's outputs for samples with these labels; raises BadInput if anything is
        unfit."""
        if not isinstance(outputs, Tensor):
            raise BadInput(f"The network should return one tensor, found {type(outputs).__name__}.")
        if outputs.shape != (len(labels), self.outputs):
            raise BadInput(
                f"The network should give outputs of shape (N, {self.outputs}) for {_name(self.loss)} on"
                f" {self.classes} classes, found {tuple(outputs.shape)} for N = {len(labels)}: set"
                " arch.outputs, or choose another network or loss."
            )
        _check_value(self.loss, outputs, self.targets(labels, outputs.dtype), self.encoding)


def _encoding(loss: LossFn) -> Encoding:
    """PyTorch's own losses need their line here: nn.MSELoss may broadcast class indices and fail silently."""
    if isinstance(loss, nn.MSELoss | nn.L1Loss | nn.SmoothL1Loss | nn.HuberLoss):
        return "value"
    if isinstance(loss, nn.BCEWithLogitsLoss):
        return "binary"
    encoding: Encoding = getattr(loss, "encoding", "index")
    if encoding not in get_args(Encoding):
        choices = ", ".join(get_args(Encoding))
        raise BadInput(f"{_name(loss)} should have an encoding out of {choices}, found {encoding!r}.")
    return encoding


def _check_outputs(encoding: Encoding, classes: int, outputs: int, loss: LossFn) -> None:
    found = f"found {outputs} outputs and {classes} classes"
    if outputs < 1:
        raise BadInput(f"arch.outputs should be null or at least 1, found {outputs}.")
    if encoding == "binary" and (outputs != 1 or classes != 2):
        raise BadInput(
            f"{_name(loss)} is for two classes and one output, {found}: choose loss=cross_entropy or"
            " loss=mse, or leave arch.outputs null."
        )
    if encoding == "index" and outputs != classes:
        raise BadInput(
            f"{_name(loss)} needs one output for each class, {found}: leave arch.outputs null, or choose"
            " loss=mse or loss=logistic for a single output."
        )
    if encoding == "value" and outputs != classes and (outputs, classes) != (1, 2):
        raise BadInput(
            f"{_name(loss)} needs one output for each class, or a single one for two classes, {found}: leave"
            " arch.outputs null."
        )


def _check_value(loss: LossFn, outputs: Tensor, targets: Tensor, encoding: Encoding) -> None:
    """The loss of these outputs must be one number."""
    given = f"outputs {tuple(outputs.shape)} and {encoding} targets {tuple(targets.shape)}"
    try:
        value = loss(outputs, targets)
    except Exception as error:
        raise BadInput(
            f"{_name(loss)} failed on {given}: {error} A loss of your own says by an attribute `encoding`"
            " whether it takes class indices ('index'), one-hot or real values ('value') or 0 and 1 for one"
            " output ('binary')."
        ) from error
    if not isinstance(value, Tensor) or value.ndim != 0 or not value.is_floating_point():
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise BadInput(f"{_name(loss)} should return the mean loss, a real tensor (), found {shape} for {given}.")


def _name(loss: LossFn) -> str:
    return f"The loss {getattr(loss, '__name__', type(loss).__name__)}"
