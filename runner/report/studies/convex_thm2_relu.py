"""Theorem 2 of the main paper, in the ReLU networks of its Figure 2."""

from runner.report.study import Study
from runner.report.theorem2 import CLAIMS, PLOTS, remark

STUDY = Study(
    title="Theorem 2's probability in ReLU networks",
    paper="On the Convex Behavior of Deep Neural Networks in Relation to the Layers' Width",
    setting="ReLU networks of 8 weight layers and one output, weights from N(0, 2/fan_in), as in Figure 2; "
    "logistic loss on one input of unit norm, at the start: the curvature g'Hg / g'g of many networks for each width n "
    "and input dimension d.",
    claims=CLAIMS,
    plots=PLOTS,
    remark=remark,
)
