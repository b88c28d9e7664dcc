"""How activations and gradients shrink or grow from layer to layer."""

from collections.abc import Iterator

import torch
from torch import Tensor

from runner.cells import Cell
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.layers import Layer, layers
from runner.probe.base import Point, Probe


class LayerNorms(Probe):
    """Typical sizes along the depth of the network (Orvieto et al., "Vanishing Curvature and the Power of Adaptive
    Methods in Randomly Initialized Deep Networks"): mean logs and medians, because sample means mislead.

    In layer_norms.csv, a row for each layer, that is each module with parameters of its own, in the order of the
    forward pass (`depth` 0, 1, …): of its input, activation_log and activation_median over samples of the root mean
    square over units, the shares zero of zeros, dead of units that are zero for all samples, and silent of samples with
    nothing but zeros; signal_log and signal_median over samples of |d l_i/d z_i|, z_i its output and l_i the sample's
    loss; gradient = |dL/dw| of its parameters.

    activation_log_ratio: the mean over samples of log(the last layer's activation / the first one's);
    signal_log_ratio: of log(the first layer's signal / the last one's); gradient_log_ratio: log of the first layer's
    gradient over the last one's; dead_units: the largest share of dead units in any layer's input, the data aside;
    dead: 1 where that is all of them and no signal comes back to the first layer, else 0 (with residual connections a
    branch may be dead in a living network).

    Natural logs. The log of 0 is left out of means, so that one silent sample does not make them -inf (`silent` says
    how many there are, and medians count them as 0); a cell is empty where nothing remains.
    """

    names = ("activation_log_ratio", "signal_log_ratio", "gradient_log_ratio", "dead_units", "dead")
    streams = False

    @property
    def table(self) -> tuple[str, ...]:
        forth = ("activation_log", "activation_median", "zero", "dead", "silent")
        return ("layer", "depth", *forth, "signal_log", "signal_median", "gradient")

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        found = self._layers(point)
        first, last = found[0], found[-1]
        shares = [layer.dead for layer in found[1:] if layer.dead is not None]
        dead_units = torch.stack(shares).amax() if shares else torch.zeros(())
        dead = bool(dead_units == 1) and first.signal is not None and not first.signal.any()
        return {
            "activation_log_ratio": mean_log_ratio(last.activation, first.activation),
            "signal_log_ratio": mean_log_ratio(first.signal, last.signal),
            "gradient_log_ratio": mean_log_ratio(first.gradient, last.gradient),
            "dead_units": dead_units,
            "dead": torch.tensor(float(dead)),
        }

    def rows(self, point: Point) -> Iterator[dict[str, Cell]]:
        for depth, layer in enumerate(self._layers(point)):
            yield {
                "layer": layer.name,
                "depth": depth,
                "activation_log": mean_log(layer.activation),
                "activation_median": median(layer.activation),
                "zero": layer.zero,
                "dead": layer.dead,
                "silent": None if layer.activation is None else (layer.activation == 0).to(layer.activation).mean(),
                "signal_log": mean_log(layer.signal),
                "signal_median": median(layer.signal),
                "gradient": layer.gradient,
            }

    def _layers(self, point: Point) -> list[Layer]:
        assert isinstance(point.loss, BatchLoss)
        if "layers" not in point.memo:
            point.memo["layers"] = layers(point.loss)
        return point.memo["layers"]


def mean_log(sizes: Tensor | None) -> Tensor | None:
    """The mean log of those that are not 0."""
    return None if sizes is None else mean_log_ratio(sizes, torch.ones_like(sizes))


def mean_log_ratio(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The mean of log(a_i / b_i) over the samples for which neither is 0; None where there are none, or where the
    layers do not share their samples."""
    if a is None or b is None or a.shape != b.shape:
        return None
    both = (a != 0) & (b != 0)
    return (a[both].log() - b[both].log()).mean() if both.any() else None


def median(sizes: Tensor | None) -> Tensor | None:
    """The mean of the two middle ones where their number is even."""
    return None if sizes is None else sizes.quantile(0.5)
