"""The density of all eigenvalues of H, G or H_r."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.cells import Cell
from runner.curvature.lanczos import random_vectors
from runner.curvature.operator import Matrix
from runner.curvature.quadrature import Quadrature, lanczos_quadrature, mean_and_error, moment, share_below_zero
from runner.errors import BadInput
from runner.probe.base import Point, Probe


@dataclass(kw_only=True)
class Density(Probe):
    """Stochastic Lanczos quadrature: for each of `probes` random vectors the nodes and weights that stand for the whole
    spectrum, into density.csv: `vector`, `index`, `node`, `weight`. The weights of a vector sum to one, so they are
    shares of the n eigenvalues, and the mean over vectors of sum_i weight_i f(node_i) estimates tr f(M) / n.

    In metrics.csv: mean = tr M / n and second = tr M^2 / n, each with its standard error over the vectors (`_se`); the
    share of eigenvalues below zero, which lies between negative_low and negative_high, both with a standard error of at
    most negative_se (more steps bring them together); and products, the number of products made.

    matrix: H, G or H_r.
    steps: Lanczos steps, and so nodes, for each vector: at most n, and fewer where its Krylov space ends early.
    """

    double_backward = True
    names = ("mean", "mean_se", "second", "second_se", "negative_low", "negative_high", "negative_se", "products")

    matrix: Matrix = "H"
    probes: int = 5
    steps: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.probes < 2:
            raise BadInput(f"probes should be at least 2 (the standard error is between them), found {self.probes}")
        if self.steps < 1:
            raise BadInput(f"steps should be at least 1, found {self.steps}")

    def measure(self, point: Point) -> dict[str, Tensor | None]:
        rules = self._rules(point)
        mean, mean_error = mean_and_error(torch.stack([moment(rule, 1) for rule in rules]))
        second, second_error = mean_and_error(torch.stack([moment(rule, 2) for rule in rules]))
        bounds, bound_errors = mean_and_error(torch.stack([torch.stack(share_below_zero(rule)) for rule in rules]))
        return {
            "mean": mean,
            "mean_se": mean_error,
            "second": second,
            "second_se": second_error,
            "negative_low": bounds[0],
            "negative_high": bounds[1],
            "negative_se": bound_errors.max(),
            "products": torch.tensor(sum(len(rule.nodes) for rule in rules)),
        }

    @property
    def table(self) -> tuple[str, ...]:
        return ("vector", "index", "node", "weight")

    def rows(self, point: Point) -> Iterator[dict[str, Cell]]:
        for vector, rule in enumerate(self._rules(point)):
            for index, (node, weight) in enumerate(zip(rule.nodes, rule.weights, strict=True)):
                yield {"vector": vector, "index": index, "node": node, "weight": weight}

    def _rules(self, point: Point) -> list[Quadrature]:
        """One for each random vector; computed once."""
        if "rules" not in point.memo:
            operator, generator = point.operator(self.matrix), torch.Generator().manual_seed(point.seed)
            vectors = random_vectors(self.probes, operator.n, operator.dtype, operator.device, generator)
            point.memo["rules"] = [lanczos_quadrature(operator, v, self.steps) for v in vectors]
        return point.memo["rules"]
