"""Figure 1 of the main paper, Tiny ImageNet."""

from runner.report.convex_fig1 import ESTIMATE, EXACT, LOWER_ERROR, at_equal_loss, claims, on_the_exact
from runner.report.convex_fig1_plots import PLOTS
from runner.report.study import Study

STUDY = Study(
    title="Figure 1: curvature along the gradient and test error over width, Tiny ImageNet",
    paper="On the Convex Behavior of Deep Neural Networks in Relation to the Layers' Width",
    setting="CIFAR ResNet with 16 k, 32 k, 64 k kernels (8 blocks a stage; the small form has one, and 400 images in "
    "batches of 20), plain SGD, rate 0.1 halved at each quarter of training; the estimate takes mu = the current rate "
    "(rate, epochs and augmentation are not given in the paper).",
    claims=(*claims(ESTIMATE), at_equal_loss(ESTIMATE, EXACT), LOWER_ERROR),
    plots=PLOTS,
    remark=on_the_exact,
)
