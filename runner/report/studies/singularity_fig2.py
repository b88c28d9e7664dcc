"""Figure 2 of Sagun, Bottou, LeCun: as Figure 1, on images of noise."""

from runner.report import image_spectra, spectra
from runner.report.study import Study

STUDY = Study(
    title="Figure 2: the spectrum on random images before and after training",
    paper=spectra.PAPER,
    setting="784-k-k-10 ReLU networks with biases on images of Gaussian noise with random labels, as many as in Figure "
    "1, cross-entropy, full-batch gradient descent at rate 0.02. All eigenvalues are exact.",
    claims=image_spectra.CLAIMS,
    plots=image_spectra.PLOTS,
    remark=image_spectra.remark,
)
