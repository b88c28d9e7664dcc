import pytest
import torch
from torch import Tensor, nn

from runner.errors import BadInput
from runner.loss import MSE, CrossEntropy, Huber, Logistic
from runner.task import LossFn, Task

LABELS = torch.tensor([0, 1, 1, 0])


def own(outputs: Tensor, targets: Tensor) -> Tensor:
    """A user's loss, without an encoding."""
    return -outputs.log_softmax(1)[torch.arange(len(targets)), targets].mean()


@pytest.mark.parametrize(
    ("classes", "values", "loss", "outputs"),
    [
        (10, None, CrossEntropy(), 10),
        (10, None, MSE(), 10),
        (2, (0.0, 1.0), MSE(), 1),
        (2, (-1.0, 1.0), Huber(), 1),
        (2, None, MSE(), 2),
        (2, (0.0, 1.0), CrossEntropy(), 2),
        (2, None, Logistic(), 1),
        (2, (-1.0, 1.0), Logistic(), 1),
        (5, None, own, 5),
        (5, None, nn.CrossEntropyLoss(), 5),
        (5, None, nn.MSELoss(), 5),
        (2, (-1.0, 1.0), nn.HuberLoss(), 1),
        (2, None, nn.BCEWithLogitsLoss(), 1),
    ],
)
def test_outputs_follow_from_data_and_loss(
    classes: int, values: tuple[float, float] | None, loss: LossFn, outputs: int
) -> None:
    task = Task.of(classes, values, loss)
    assert task.outputs == outputs
    labels = torch.arange(classes).repeat(2)
    task.check(torch.randn(len(labels), outputs, generator=torch.Generator().manual_seed(0)), labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_targets(dtype: torch.dtype) -> None:
    def targets(task: Task) -> Tensor:
        return task.targets(LABELS, dtype)

    assert targets(Task.of(2, None, CrossEntropy())) is LABELS
    one_hot = torch.tensor([[1, 0], [0, 1], [0, 1], [1, 0]], dtype=dtype)
    for task, expected in (
        (Task.of(2, None, MSE()), one_hot),
        (Task.of(2, (0.0, 1.0), MSE(), outputs=2), one_hot),
        (Task.of(2, (0.1, 0.7), MSE()), torch.tensor([[0.1], [0.7], [0.7], [0.1]], dtype=dtype)),
        (Task.of(2, None, MSE(), outputs=1), torch.tensor([[0], [1], [1], [0]], dtype=dtype)),
        (Task.of(2, (-1.0, 1.0), Logistic()), torch.tensor([[0], [1], [1], [0]], dtype=dtype)),
    ):
        assert targets(task).dtype == dtype
        assert torch.equal(targets(task), expected)


@pytest.mark.parametrize(
    ("values", "loss", "outputs"),
    [
        ((0.0, 1.0), MSE(), [0.4, 0.6, 0.4, 0.6]),
        ((-1.0, 1.0), MSE(), [-0.1, 0.1, -3.0, 3.0]),
        ((1.0, -1.0), MSE(), [0.1, -0.1, 3.0, -3.0]),  # the first class may have the larger value
        ((-1.0, 1.0), Logistic(), [-0.1, 0.1, -3.0, 3.0]),
        ((0.0, 1.0), Logistic(), [-0.1, 0.1, -3.0, 0.4]),  # the sign of the logit, not the labels' midpoint
    ],
)
def test_one_output_is_wrong_on_the_other_side(values: tuple[float, float], loss: LossFn, outputs: list[float]) -> None:
    wrong = Task.of(2, values, loss).wrong(torch.tensor(outputs)[:, None], LABELS)
    assert wrong.tolist() == [False, False, True, True]


@pytest.mark.parametrize("loss", [CrossEntropy(), MSE(), own])
def test_several_outputs_are_wrong_where_another_is_larger(loss: LossFn) -> None:
    outputs = torch.tensor([[3.0, 1.0, 2.0], [1.0, 0.0, 2.0]])
    assert Task.of(3, None, loss).wrong(outputs, torch.tensor([0, 1])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("classes", "loss", "outputs", "message"),
    [
        (
            10,
            Logistic(),
            None,
            r"The loss Logistic is for two classes and one output, found 1 outputs and 10",
        ),
        (2, Logistic(), 2, r"The loss Logistic is for two classes and one output, found 2 outputs and 2"),
        (
            10,
            CrossEntropy(),
            1,
            r"The loss CrossEntropy needs one output for each class, found 1 outputs and 10",
        ),
        (10, own, 11, r"The loss own needs one output for each class, found 11 outputs and 10"),
        (
            3,
            MSE(),
            1,
            r"The loss MSE needs one output for each class, or a single one for two classes, found 1",
        ),
        (3, MSE(), 2, r"The loss MSE needs one output .*, found 2 outputs and 3 classes"),
        (3, MSE(), 0, r"arch\.outputs should be null or at least 1, found 0"),
    ],
)
def test_refuses_a_loss_that_does_not_fit(classes: int, loss: LossFn, outputs: int | None, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Task.of(classes, None, loss, outputs)


def test_refuses_an_unknown_encoding() -> None:
    class Odd(MSE):
        encoding = "onehot"  # type: ignore[assignment]

    with pytest.raises(BadInput, match="The loss Odd should have an encoding out of value, index, binary"):
        Task.of(2, None, Odd())


@pytest.mark.parametrize(
    ("loss", "outputs", "labels", "message"),
    [
        (CrossEntropy(), (3, 4), [0, 1, 2], r"The network should give outputs of shape \(N, 3\)"),
        (
            nn.GaussianNLLLoss(),
            (3, 3),
            [0, 1, 2],
            r"(?s)The loss GaussianNLLLoss failed .*attribute `encoding`",
        ),
        (
            nn.CrossEntropyLoss(reduction="none"),
            (3, 3),
            [0, 1, 2],
            r"should return the mean loss.*found \(3,\)",
        ),
    ],
)
def test_check_refuses(loss: LossFn, outputs: tuple[int, int], labels: list[int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Task.of(3, None, loss).check(torch.zeros(outputs), torch.tensor(labels))
