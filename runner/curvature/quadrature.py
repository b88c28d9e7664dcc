"""The spectral density of a symmetric map by stochastic Lanczos quadrature."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.curvature.lanczos import ROUNDING, KrylovSpace, Map


@dataclass(frozen=True)
class Quadrature:
    """Gauss quadrature of M's spectral measure at one vector v: sum_i weights_i f(nodes_i) ~ v'f(M)v / v'v, exact for
    polynomials up to degree 2m - 1, and for every f where `exact`, that is where M^m v added nothing new.

    `nodes` (m,), ascending, and `weights` (m,), with sum 1: float64 on the CPU. `zero`: nodes below it are zero to
    within rounding.
    """

    nodes: Tensor
    weights: Tensor
    exact: bool
    zero: float


def lanczos_quadrature(product: Map, v: Tensor, steps: int) -> Quadrature:
    """From m = `steps` products, at most n, and fewer where the powers of M span fewer dimensions from v (n,). (Golub
    and Meurant 1994.)"""
    space = KrylovSpace(product, v[None], steps)
    space.grow(steps)
    ritz = space.ritz()
    zero = ROUNDING * torch.finfo(v.dtype).eps * ritz.values.abs().max().item()
    return Quadrature(ritz.values, ritz.weights[0].square(), space.held == space.products, zero)


def moment(rule: Quadrature, power: int) -> Tensor:
    """v'M^power v / v'v: its mean over random v of uniform direction is tr M^power / n."""
    return rule.weights @ rule.nodes**power


def share_below_zero(rule: Quadrature) -> tuple[Tensor, Tensor]:
    """Between which two numbers the measure of the negative eigenvalues lies, by the inequalities of Chebyshev, Markov
    and Stieltjes: the weight below the last negative node, and that up to the first one which is not. The weight of
    the negative nodes itself can be far off: the many eigenvalues near zero share a node, which has one sign."""
    below = int((rule.nodes < -rule.zero).sum())
    if rule.exact:
        return rule.weights[:below].sum(), rule.weights[:below].sum()
    return rule.weights[: max(below - 1, 0)].sum(), rule.weights[: below + 1].sum()


def mean_and_error(draws: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over the first dimension, of independent draws, and its standard error."""
    return draws.mean(0), draws.std(0) / math.sqrt(len(draws))
