"""Theorem 1 of the main paper: the law of Q = grad f' (d2 f) grad f over the width, inputs of dimension n."""

from typing import Any

from matplotlib.figure import Figure

from runner.report import theorem1
from runner.report.study import Claim, Finding, Plot, Runs, Study

LAWS = {"normal": "normal", "uniform": "uniform", "rademacher": "Rademacher"}


def name(arm: dict[str, Any]) -> str:
    return f"{LAWS[arm['law']]}, {arm['depth']:g} layers"


def zero_mean(runs: Runs) -> Finding:
    return theorem1.zero_mean(theorem1.draws(runs), "Q")


def variance_falls(runs: Runs) -> Finding:
    return theorem1.falls(theorem1.draws(runs), "Q", name)


def curvature_falls(runs: Runs) -> Finding:
    return theorem1.falls(theorem1.draws(runs), "along", name)


def norm_preserved(runs: Runs) -> Finding:
    return theorem1.norm_preserved(theorem1.draws(runs), name)


def residual_zero(runs: Runs) -> Finding:
    return theorem1.zero_mean(theorem1.draws(runs), "gHrg")


def variances(runs: Runs) -> Figure:
    return theorem1.variances(theorem1.draws(runs), "law", LAWS)


def zero_means(runs: Runs) -> Figure:
    return theorem1.zero_means(theorem1.draws(runs), "law", LAWS)


STUDY = Study(
    title="Theorem 1: the output's curvature along its gradient, over width",
    paper="On the Convex Behavior of Deep Neural Networks in Relation to the Layers' Width",
    setting="Deep linear networks with one output, width n and inputs of unit norm and dimension n; independent "
    "weights of variance 1/n from one symmetric law, measured at the start. Q = grad f' (d2 f) grad f, s = |grad f|^2.",
    claims=(
        Claim("mean zero", "E Q = 0.", theorem1.ZERO_RULE, zero_mean),
        Claim("variance", "Var Q = O(1/n).", theorem1.SLOPE_RULE.format("Var Q"), variance_falls),
        Claim(
            "curvature",
            "So does the curvature along the gradient: Var(Q/s) = O(1/n).",
            theorem1.SLOPE_RULE.format("Var(Q/s)"),
            curvature_falls,
        ),
        Claim("norm", "|grad f| tends to a constant (norm preservation).", theorem1.NORM_RULE, norm_preserved),
        Claim(
            "residual part",
            "Carried over to the loss, here the squared one: E[g'H_r g] = 0 as well. (It is l'^3 Q for one sample, and "
            "l' goes with f; the theorem is about losses with bounded derivatives.)",
            theorem1.ZERO_RULE,
            residual_zero,
        ),
    ),
    plots=(
        Plot(
            "variances",
            "Variances over networks with 95 % intervals and the fitted slopes; dashed, 4/n for two layers, which is "
            "exact, and 436/n for four, the limit of wide networks. Below, the mean of |grad f| and the range of 95 % "
            "of the networks: it narrows around the root of the number of layers.",
            variances,
        ),
        Plot(
            "means",
            "Means in standard deviations; the intervals hold together with 95 %. Q scatters around zero; under "
            "squared loss g'H_r g does not.",
            zero_means,
        ),
    ),
)
