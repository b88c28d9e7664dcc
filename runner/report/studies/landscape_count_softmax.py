"""Cooper's theorem for softmax outputs under squared loss."""

from dataclasses import replace

from runner.report.studies import landscape_count
from runner.report.study import Claim

STUDY = replace(
    landscape_count.STUDY,
    title="Theorem: the Hessian at a minimum without loss, of softmax outputs",
    setting="Networks of three weight layers with biases and smooth activations, r softmax outputs under squared loss "
    "(Brier's score), n weights, on d < n / (r - 1) random inputs with random labels, smoothed by 0.3 since finite "
    "weights reach no others, Levenberg-Marquardt in float64; the dense Hessian at the end. "
    f"Minima with a loss of at most {landscape_count.REACHED:g} are judged.",
    claims=(
        Claim(
            "softmax outputs",
            "With r softmax outputs the Hessian has exactly (r - 1) d positive eigenvalues at a minimum without loss, "
            "since the outputs sum to one.",
            "The count is exact at 95 % or more of at least five minima. It does not hold where the share's "
            "95 % interval lies below that. Eigenvalues count as zero up to 1e-10 of the largest.",
            landscape_count.positive(single=False),
        ),
        *(claim for claim in landscape_count.STUDY.claims if claim.name in ("none negative", "a gap")),
    ),
    remark=landscape_count.not_reached,
)
