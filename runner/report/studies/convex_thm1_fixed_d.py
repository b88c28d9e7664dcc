"""Theorem 1 of the main paper at a fixed input dimension, where it depends on which variance the weights have."""

from typing import Any

from matplotlib.figure import Figure

from runner.report import theorem1
from runner.report.study import Claim, Finding, Plot, Runs, Study

FANS = {"in": "variance 1/fan_in", "width": "one variance, 1/n"}


def name(arm: dict[str, Any]) -> str:
    return f"{FANS[arm['fan']]}, {arm['depth']:g} layers"


def falls(runs: Runs, fan: str, value: str) -> Finding:
    frame = theorem1.draws(runs)
    return theorem1.falls(frame[frame["fan"] == fan], value, name)


def one_variance(runs: Runs) -> Finding:
    return falls(runs, "width", "Q")


def by_fan_in(runs: Runs) -> Finding:
    return falls(runs, "in", "Q")


def curvature_by_fan_in(runs: Runs) -> Finding:
    return falls(runs, "in", "along")


def zero_mean(runs: Runs) -> Finding:
    return theorem1.zero_mean(theorem1.draws(runs), "Q")


def norm_by_fan_in(runs: Runs) -> Finding:
    frame = theorem1.draws(runs)
    return theorem1.norm_preserved(frame[frame["fan"] == "in"], name)


def variances(runs: Runs) -> Figure:
    return theorem1.variances(theorem1.draws(runs), "fan", FANS)


STUDY = Study(
    title="Theorem 1 at a fixed input dimension",
    paper="On the Convex Behavior of Deep Neural Networks in Relation to the Layers' Width",
    setting="As for Theorem 1, with inputs of dimension 10 whatever the width n, and normal weights: all of variance "
    "1/n (what the theorem's words say: independent, of one law), or of variance 1/fan_in (as networks are started), "
    "which is 1/10 in the first layer.",
    claims=(
        Claim("mean zero", "E Q = 0.", theorem1.ZERO_RULE, zero_mean),
        Claim(
            "one variance",
            "Var Q = O(1/n), all weights of variance 1/n.",
            theorem1.SLOPE_RULE.format("Var Q"),
            one_variance,
        ),
        Claim(
            "fan-in", "Var Q = O(1/n), weights of variance 1/fan_in.", theorem1.SLOPE_RULE.format("Var Q"), by_fan_in
        ),
        Claim(
            "fan-in, curvature",
            "Var(Q/s) = O(1/n), weights of variance 1/fan_in.",
            theorem1.SLOPE_RULE.format("Var(Q/s)"),
            curvature_by_fan_in,
        ),
        Claim(
            "fan-in, norm",
            "|grad f| tends to a constant, weights of variance 1/fan_in.",
            theorem1.NORM_RULE,
            norm_by_fan_in,
        ),
    ),
    plots=(
        Plot(
            "variances",
            "Variances over networks with 95 % intervals and the fitted slopes; dashed, for two layers the "
            "exact 4/n with one variance and 4/d with 1/fan_in, whatever the width, and for four the limits of wide "
            "networks.",
            variances,
        ),
    ),
)
