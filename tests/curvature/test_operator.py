"""H, G and H_r as maps, streamed losses, and networks side by side: each against plain autograd."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from runner.curvature import forward
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.difference import gradient_difference, loss_difference
from runner.curvature.exact import gauss_newton, hessian_product, residual
from runner.curvature.operator import MATRICES, Operator
from runner.curvature.streamed import StreamedLoss
from runner.curvature.vectors import dot, flatten, unflatten


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 3)).double()


def data(count: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, generator=generator).double(), torch.randint(0, 3, (count,), generator=generator)


def dense(model: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """H from torch's own function over a flat vector, G = J'SJ with the Jacobian row by row and S of softmax in closed
    form."""
    named = {n: p.detach() for n, p in model.named_parameters()}

    def outputs(flat: Tensor) -> Tensor:
        return functional_call(model, unflatten(flat, named), (inputs,))

    w = flatten(named)
    H = torch.autograd.functional.hessian(lambda flat: nn.functional.cross_entropy(outputs(flat), targets), w)
    J = torch.autograd.functional.jacobian(outputs, w)
    p = outputs(w).softmax(1)
    S = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    G = torch.einsum("nci,ncd,ndj->ij", J, S, J) / len(inputs)
    return {"H": H, "G": G, "H_r": H - G}


@pytest.mark.parametrize("matrix", MATRICES)
def test_products(matrix: str) -> None:
    model, (inputs, targets) = network(), data()
    expected = dense(model, inputs, targets)[matrix]
    operator = Operator(BatchLoss(model, nn.CrossEntropyLoss(), inputs, targets), matrix)  # type: ignore[arg-type]
    columns = torch.stack([operator(e) for e in torch.eye(operator.n, dtype=torch.float64)])
    assert torch.allclose(columns, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("matrix", MATRICES)
def test_streamed_parts_are_weighted_by_their_size(matrix: str) -> None:
    """16 + 4 samples: unweighted means are far off."""
    model, (inputs, targets) = network(), data(20)

    def parts() -> Iterator[BatchLoss]:
        for here in (slice(0, 16), slice(16, 20)):
            share = len(inputs[here]) / 20
            yield BatchLoss(model, nn.CrossEntropyLoss(), inputs[here], targets[here], share=share)

    streamed, whole = StreamedLoss(parts), BatchLoss(model, nn.CrossEntropyLoss(), inputs, targets)
    v = torch.randn(Operator(whole, "H").n, dtype=torch.float64)
    assert torch.allclose(Operator(streamed, matrix)(v), Operator(whole, matrix)(v), rtol=1e-12)  # type: ignore[arg-type]
    g = whole.gradient()
    assert torch.allclose(flatten(streamed.gradient()), flatten(g), rtol=1e-12)
    assert streamed(whole.weights).item() == pytest.approx(whole(whole.weights).item(), rel=1e-12)
    for name, value in vars(forward.split(whole, g)).items():
        assert getattr(forward.split(streamed, g), name).item() == pytest.approx(value.item(), rel=1e-10)


@pytest.mark.parametrize("own_data", [False, True])
def test_networks_side_by_side_measure_as_each_alone(own_data: bool) -> None:
    models = [network(seed) for seed in range(3)]
    batches = [data(7) if not own_data else (torch.randn(7, 3).double(), torch.randint(0, 3, (7,))) for _ in models]
    alone = [BatchLoss(model, nn.CrossEntropyLoss(), *batch) for model, batch in zip(models, batches, strict=True)]
    stack = network()
    for parameters in zip(stack.parameters(), *(m.parameters() for m in models), strict=True):
        parameters[0].data = torch.stack(parameters[1:]).detach()
    given = [torch.stack(part) for part in zip(*batches, strict=True)] if own_data else batches[0]
    together = BatchLoss(stack, nn.CrossEntropyLoss(), *given, rows=slice(None), own_data=own_data)
    middle = BatchLoss(stack, nn.CrossEntropyLoss(), *batches[1], rows=1)
    assert torch.equal(middle(middle.weights), alone[1](alone[1].weights))
    g, gs = together.gradient(), [loss.gradient() for loss in alone]
    pairs = list(zip(alone, gs, strict=True))

    def same(measured: Tensor, expected: list[Tensor]) -> None:
        assert torch.allclose(measured, torch.stack(expected), rtol=1e-10)

    same(together(together.weights), [loss(loss.weights) for loss in alone])
    same(dot(g, g, True), [dot(v, v) for v in gs])
    for measure in (gauss_newton, residual, lambda loss, v: hessian_product(loss, v).gHg):
        same(measure(together, g), [measure(loss, v) for loss, v in pairs])
    same(gradient_difference(together, g, 0.1).gHg, [gradient_difference(x, v, 0.1).gHg for x, v in pairs])
    same(loss_difference(together, g, 0.1), [loss_difference(x, v, 0.1) for x, v in pairs])
    for name in ("gHg", "gGg", "gHrg"):
        parts = [getattr(forward.split(loss, v), name) for loss, v in pairs]
        same(getattr(forward.split(together, g), name), parts)
