"""Derivatives of the output along itself: against closed forms, and against dense Hessians of small networks."""

import pytest
import torch
from cases import assert_same, everything_of
from torch import Tensor, nn

from runner.arch.mlp import MLP
from runner.curvature import output
from runner.curvature.batch_loss import BatchLoss
from runner.curvature.output import cross_terms, own_curvature

DIM = 4


class Quadratic(nn.Module):
    """a'(W x)^2, the square by entries."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(dim, width, bias=False), nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).square())


def loss_of(model: nn.Module, count: int = 5, shape: tuple[int, ...] = (DIM,)) -> BatchLoss:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    return BatchLoss(model.double(), nn.MSELoss(), inputs, torch.zeros(count, 1, dtype=torch.float64))


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_two_linear_weight_layers() -> None:
    """f = a'Wx has grad f = (Wx, a x') and d2 f[(p, P), (q, R)] = p'R x + q'P x, hence s = |Wx|^2 + |a|^2 |x|^2,
    Q = 2 f |x|^2 (2f on the unit sphere), and grad f_i' (d2 f_j) grad f_k = f_i x_k'x_j + f_k x_i'x_j: where j = i, one
    of its two parts is f_k |x_i|^2, however orthogonal the samples are."""
    model = MLP((DIM,), 1, base_width=3, depth=2, activation="identity")
    loss = loss_of(model)
    x, W, a = loss.inputs, model.body[0][0].weight.detach(), model.head.weight.detach()
    f = (x @ W.T @ a.T)[:, 0]
    own = own_curvature(loss, 5)
    same(own.f, f)
    same(own.s, (x @ W.T).square().sum(1) + a.square().sum() * x.square().sum(1))
    same(own.Q, 2 * f * x.square().sum(1))
    gram = x @ x.T
    same(cross_terms(loss, 5), f[:, None, None] * gram + f * gram[:, :, None])


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_chains(depth: int) -> None:
    """One unit per layer: f = x p with p = w_1 … w_L, so d_l f = f/w_l, d_l d_m f = f/(w_l w_m) for l != m, and 0 for
    l = m. With a = sum w_l^-2 and b = sum w_l^-4: s = f^2 a, Q = f^3 (a^2 - b), and the cross terms are
    f_i f_j f_k (a^2 - b)."""
    model = MLP((1,), 1, base_width=1, depth=depth, activation="identity")
    loss = loss_of(model, shape=(1,))
    w = torch.cat([p.detach().flatten() for p in model.parameters()])
    f, a, b = loss.inputs[:, 0] * w.prod(), w.pow(-2).sum(), w.pow(-4).sum()
    own = own_curvature(loss, 5)
    same(own.s, f**2 * a)
    same(own.Q, f**3 * (a**2 - b))
    same(cross_terms(loss, 5), torch.einsum("i,j,k->ijk", f, f, f) * (a**2 - b))


def test_a_quadratic_activation() -> None:
    """f = a'z^2 with z = Wx (squares by entries) has grad f = (z^2, 2 (a z) x'). Along the weights' direction (p, P),
    z moves by Px, so d2 f[(p, P), (q, R)] = 2 p'(z Rx) + 2 q'(z Px) + 2 a'(Px Rx). With P_i x_j = 2 a z_i x_i'x_j:
    grad f_i' (d2 f_j) grad f_k = sum over units of 4 a z_i^2 z_j z_k x_k'x_j + 4 a z_k^2 z_j z_i x_i'x_j
    + 8 a^3 z_i z_k (x_i'x_j)(x_k'x_j), and with i = j = k: Q = 8 |x|^2 sum a z^4 + 8 |x|^4 sum a^3 z^2."""
    model = Quadratic(DIM, 3)
    loss = loss_of(model)
    z, a = loss.inputs @ model.first.weight.detach().T, model.last.weight.detach()[0]
    gram, r = loss.inputs @ loss.inputs.T, loss.inputs.square().sum(1)
    own = own_curvature(loss, 5)
    same(own.s, z.pow(4).sum(1) + 4 * r * (z.square() @ a.square()))
    same(own.Q, 8 * r * (z.pow(4) @ a) + 8 * r**2 * (z.square() @ a.pow(3)))
    one_sided = 4 * torch.einsum("iu,ju,ku,u,kj->ijk", z.square(), z, z, a, gram)
    both = 8 * torch.einsum("iu,ku,u,ij,kj->ijk", z, z, a.pow(3), gram, gram)
    same(cross_terms(loss, 5), one_sided + one_sided.permute(2, 1, 0) + both)


NETWORKS = {
    "tanh": (lambda: MLP((DIM,), 1, base_width=3, depth=3, activation="tanh", bias=True), (DIM,), 0),
    "relu": (lambda: MLP((DIM,), 1, base_width=5, depth=3), (DIM,), 0),
    "norm": (lambda: MLP((DIM,), 3, base_width=4, depth=3, activation="gelu", norm="layer"), (DIM,), 2),
    "conv": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1), nn.GroupNorm(1, 3), nn.Softplus(), nn.Conv2d(3, 2, 2), nn.Flatten()
        ),
        (2, 3, 3),
        5,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_against_dense_hessians(name: str) -> None:
    make, shape, chosen = NETWORKS[name]
    model = make()
    loss = loss_of(model, 3, shape)
    names, entries = zip(*((n, p.detach()) for n, p in model.named_parameters()), strict=True)
    w = torch.cat([entry.flatten() for entry in entries])

    def f(flat: Tensor, x: Tensor) -> Tensor:
        pieces = flat.split([entry.numel() for entry in entries])
        own = {n: piece.reshape(entry.shape) for n, piece, entry in zip(names, pieces, entries, strict=True)}
        return torch.func.functional_call(model, own, (x[None],)).flatten()[chosen]

    g = torch.stack([torch.autograd.functional.jacobian(lambda flat, x=x: f(flat, x), w) for x in loss.inputs])
    H = torch.stack([torch.autograd.functional.hessian(lambda flat, x=x: f(flat, x), w) for x in loss.inputs])
    before = everything_of(model)
    own, T = own_curvature(loss, 3, chosen), torch.einsum("ia,jab,kb->ijk", g, H, g)
    assert T.abs().amax() > 1e-3
    same(own.s, g.square().sum(1))
    same(own.Q, torch.einsum("iii->i", T))
    same(cross_terms(loss, 3, chosen), T)
    assert_same(before, everything_of(model))


def test_parts_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer samples than asked for, and as many at a time as memory allows."""
    loss = loss_of(MLP((DIM,), 1, base_width=3, depth=3, activation="tanh"))
    whole = own_curvature(loss, 100)
    assert len(whole.f) == 5
    assert cross_terms(loss, 100).shape == (5, 5, 5)
    monkeypatch.setattr(output, "HELD_ON_CPU", 2 * sum(w.numel() for w in loss.weights.values()))
    same(own_curvature(loss, 3).Q, whole.Q[:3])


def test_small_gradients_do_not_underflow() -> None:
    """|grad f| ~ 1e-24 in fp32, whose square is 0; the direction is still there. And no gradient gives no nan."""
    model = MLP((DIM,), 1, base_width=3, depth=8, activation="identity")
    inputs, targets = torch.randn(2, DIM), torch.zeros(2, 1)
    small = {n: p.detach() * 1e-3 for n, p in model.named_parameters()}
    model.load_state_dict(small)
    own = own_curvature(BatchLoss(model, nn.MSELoss(), inputs, targets), 2)
    exact = own_curvature(BatchLoss(model, nn.MSELoss(), inputs, targets, torch.float64), 2)
    assert (own.s == 0).all()
    torch.testing.assert_close(own.grad_f.double(), exact.grad_f, rtol=1e-4, atol=0)
    torch.testing.assert_close(own.along.double(), exact.along, rtol=1e-4, atol=0)
    dead = own_curvature(BatchLoss(model, nn.MSELoss(), torch.zeros(1, DIM), targets[:1]), 1)
    assert dead.grad_f == 0
    assert dead.along == 0
    assert dead.Q == 0
