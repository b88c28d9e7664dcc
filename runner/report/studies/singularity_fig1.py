"""Figure 1 of Sagun, Bottou, LeCun: the Hessian's spectrum on MNIST before and after training, over hidden widths."""

from runner.report import image_spectra, spectra
from runner.report.study import Study

STUDY = Study(
    title="Figure 1: the spectrum on MNIST before and after training",
    paper=spectra.PAPER,
    setting="784-k-k-10 ReLU networks with biases on a class-balanced subset of MNIST, cross-entropy, full-batch "
    "gradient descent at rate 0.02 (sizes, rate and number of images are our choice). All eigenvalues are exact.",
    claims=image_spectra.CLAIMS,
    plots=image_spectra.PLOTS,
    remark=image_spectra.remark,
)
