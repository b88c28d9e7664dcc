"""What the public functions leave as it was, and what they refuse."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from curvature.cases import assert_same, conv_case, everything_of
from torch import Tensor, nn

from runner import curvature

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "split": curvature.split,
    "split by double backward": lambda *args, **kwargs: curvature.split(*args, **kwargs, method="double_backward"),
    "hvp": curvature.hvp,
    "finite_difference": lambda *args, **kwargs: curvature.finite_difference(*args, **kwargs, step=1e-3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_measuring_changes_nothing(name: str, mode: str) -> None:
    case = conv_case("batch", mode, nn.ReLU, dropout=0.5)
    case.loss_fn(case.model(case.inputs), case.targets).backward()
    before = everything_of(case.model)
    FUNCTIONS[name](*case)
    assert_same(before, everything_of(case.model))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_exception_changes_nothing_either(name: str) -> None:
    case = conv_case("batch", "train", dropout=0.5)
    calls = []

    def failing(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(outputs)
        raise RuntimeError("broken loss")

    before = everything_of(case.model)
    with pytest.raises(RuntimeError, match="broken loss"):
        FUNCTIONS[name](case.model, failing, case.inputs, case.targets)
    assert calls
    assert_same(before, everything_of(case.model))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_default_device_changes_nothing(name: str) -> None:
    """Tensors of the functions' own are where the network is."""
    case = conv_case("batch", "train", dropout=0.5)
    expected = FUNCTIONS[name](*case).gHg
    with torch.device("meta"):
        assert FUNCTIONS[name](*case).gHg == expected


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_loss_that_draws_and_fails_leaves_the_generator_alone(name: str) -> None:
    def failing(outputs: Tensor, targets: Tensor) -> Tensor:
        torch.rand(1)
        raise RuntimeError("broken loss")

    case = conv_case("batch", "train")
    before = everything_of(case.model)
    with pytest.raises(RuntimeError, match="broken loss"):
        FUNCTIONS[name](case.model, failing, case.inputs, case.targets)
    assert_same(before, everything_of(case.model))


@pytest.mark.parametrize("options", [{"max_norm": 0.5}, {"scale_grad_by_freq": True}, {"sparse": True}], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_embeddings_that_have_no_gradient_are_refused_untouched(name: str, options: dict[str, Any]) -> None:
    model = nn.Sequential(nn.Embedding(7, 5, **options), nn.Flatten(), nn.Linear(20, 3))
    before = everything_of(model)
    with pytest.raises(ValueError, match=f"^0 should have {next(iter(options))}="):
        FUNCTIONS[name](model, nn.CrossEntropyLoss(), torch.arange(8).view(2, 4) % 7, torch.tensor([0, 1]))
    assert_same(before, everything_of(model))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_inference_mode_is_refused(name: str) -> None:
    """It would make every derivative zero, without a word."""
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"outside of torch\.inference_mode"):
        FUNCTIONS[name](nn.Linear(2, 1), nn.MSELoss(), torch.ones(3, 2), torch.ones(3, 1))


def test_an_unknown_method_is_refused() -> None:
    wrong: Any = "tailor"
    with pytest.raises(ValueError, match="method should be taylor or double_backward, found 'tailor'"):
        curvature.split(nn.Linear(2, 1), nn.MSELoss(), torch.ones(3, 2), torch.ones(3, 1), method=wrong)


def test_unfit_directions_and_steps_are_refused() -> None:
    case = conv_case("none", "train")
    with pytest.raises(ValueError, match="one tensor for each"):
        curvature.hvp(*case, [torch.zeros(1)])
    with pytest.raises(ValueError, match="shape"):
        curvature.hvp(*case, [torch.zeros(1) for _ in case.model.parameters()])
    with pytest.raises(ValueError, match=r"missing: \[.*\], unknown: \["):
        curvature.hvp(*case, {"x": torch.zeros(1)})
    with pytest.raises(ValueError, match="step should be positive"):
        curvature.finite_difference(*case, step=0.0)
    with pytest.raises(ValueError, match="0-d"):
        curvature.hvp(case.model, nn.CrossEntropyLoss(reduction="none"), case.inputs, case.targets)
