"""A curvature-driven rate on CIFAR-100 with the residual network of Figure 1."""

from runner.report.rate_study import rate_study

STUDY = rate_study(
    "Curvature-driven learning rate: CIFAR-100",
    "The CIFAR ResNet of Figure 1 with batch norm and cross-entropy; at scale=small one block a stage and a "
    "class-balanced subset.",
)
