"""The sweep over whole networks: modules, randomness, replicas, what is left untouched and what is refused."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from taylor_oracle import Op, assert_expansion, assert_split, random_direction, sweep
from torch import Tensor, nn

from runner.curvature.taylor import expand, split_terms


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def labels(n: int, classes: int) -> Tensor:
    return torch.arange(n) % classes


class Residual(nn.Module):
    def __init__(self, channels: int, inplace: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y += x
        return y.relu_()


def resnet(classes: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        Residual(4),
        nn.MaxPool2d(2),
        Residual(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, classes),
    ).double()


class First(nn.Module):
    """A network's input goes through p q, so that a module behind it sees all coefficients."""

    def __init__(self, module: nn.Module, *shape: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.p, self.q = (nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for _ in "pq")
        self.module = module.double()

    def forward(self, _: Any) -> Any:
        return self.module(self.p * self.q)


class SelfAttention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x: Tensor) -> Any:
        return self.attention(x, x, x, need_weights=False)[0], self.attention(x, x, x)


MODULES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "attention": (lambda: SelfAttention(), (2, 3, 8)),
    "attention_bias_kv": (lambda: SelfAttention(add_bias_kv=True, dropout=0.3), (2, 3, 8)),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True), (2, 3, 8)),
    "encoder_dropout": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
        (2, 3, 8),
    ),
    "rnn": (lambda: nn.RNN(4, 5, 2, nonlinearity="relu"), (3, 2, 4)),
    "lstm": (lambda: nn.LSTM(4, 5, 2, bidirectional=True, batch_first=True, dropout=0.5), (2, 3, 4)),
    "lstm_projection": (lambda: nn.LSTM(4, 5, proj_size=2, bias=False), (3, 2, 4)),
    "gru": (lambda: nn.GRU(4, 5, bidirectional=True), (3, 2, 4)),
    "lstm_cell": (lambda: nn.LSTMCell(4, 5), (2, 4)),
    "gru_cell": (lambda: nn.GRUCell(4, 5), (2, 4)),
    "batch_norm": (lambda: nn.BatchNorm2d(3), (4, 3, 2, 2)),
    "sync_batch_norm_eval": (lambda: nn.SyncBatchNorm(3).eval(), (4, 3, 2, 2)),
    "instance_norm": (lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (4, 3, 2, 2)),
    "dropout": (lambda: nn.Dropout(0.4), (4, 5)),
    "dropout2d": (lambda: nn.Dropout2d(0.4), (4, 5, 2, 2)),
    "alpha_dropout": (lambda: nn.AlphaDropout(0.3), (4, 5)),
    "feature_alpha_dropout": (lambda: nn.FeatureAlphaDropout(0.3), (4, 5, 2)),
    "rrelu": (lambda: nn.RReLU(), (4, 5)),
    "weight_norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 2, 2)), (2, 3, 3, 3)),
    "orthogonal_free": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.Softmax(-1)), (2, 4)),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_modules(name: str, train: bool) -> None:
    make, shape = MODULES[name]
    torch.manual_seed(0)
    if name == "weight_norm":
        pytest.skip("torch's double backward of its weight norm is wrong; the rule is tested against the definition")
    module = make()
    assert_expansion(First(module if "eval" in name else module.train(train), *shape))


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_residual_network(train: bool, last: bool) -> None:
    x = images(6, 3, 8, 8)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    assert_split(resnet().train(train), F.cross_entropy, x, labels(6, 3))


def test_losses() -> None:
    x, y = images(6, 3, 8, 8), labels(6, 3)
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]).double(), label_smoothing=0.1, ignore_index=1)
    one_hot = lambda o, t: 0.5 * (o - F.one_hot(t, 3)).square().sum(1).mean()  # noqa: E731
    for loss in (weighted, one_hot, lambda o, t: F.huber_loss(o[:, 0], t.double())):
        assert_split(resnet(), loss, x, y)


def test_a_loss_linear_in_the_outputs() -> None:
    f0, f1, f2 = sweep(resnet(), random_direction(resnet()), images(6, 3, 8, 8))
    total, gauss_newton, residual = split_terms(lambda o, t: o.mean(), f0, f1, f2, None)
    assert gauss_newton == 0
    torch.testing.assert_close(residual, f2.mean())
    assert total == residual


def test_gauss_newton_part_is_not_negative_in_single_precision() -> None:
    torch.manual_seed(0)
    for scale in (1e-3, 1.0, 30.0):
        f0 = scale * torch.randn(50, 10)
        f1 = torch.randn(50, 10) * 1e-4 + torch.randn(50, 1) * 1e3  # nearly along the direction that changes nothing
        assert split_terms(F.cross_entropy, f0, f1, torch.zeros(50, 10), labels(50, 10))[1] >= 0


def test_nested_outputs() -> None:
    function = lambda x: {"a": x * x, "b": [x.exp(), (x.sum(), torch.ones(3))]}  # noqa: E731
    f0, f1, f2 = sweep(Op(function, [(3,)]), random_direction(Op(function, [(3,)])))
    assert f0.keys() == f1.keys() == f2.keys()
    assert torch.equal(f2["b"][1][1], torch.zeros(3))
    assert_expansion(Op(lambda x: [x * x, (x.exp(), x.sum())], [(3,)]))


def test_tied_and_frozen_parameters() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    model[2].weight = model[0].weight
    model[4].bias.requires_grad_(False)
    assert_split(model, F.cross_entropy, images(5, 4), labels(5, 2))


def test_a_direction_in_one_layer_leaves_the_others_constant() -> None:
    model, x = resnet(), images(6, 3, 8, 8)
    whole = random_direction(model)
    for name in ("0.weight", "5.body.4.bias", "8.bias"):
        one = {name: whole[name]}
        padded = {n: v if n == name else torch.zeros_like(v) for n, v in whole.items()}
        for a, b in zip(sweep(model, one, x), sweep(model, padded, x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_module_that_hides_its_parameters() -> None:
    class Hiding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(images(3, 3))
            self.all = [self.w]  # where functional_call does not look

        def forward(self, x: Tensor) -> Tensor:
            return (self.all[0] @ self.all[0] @ x).tanh()

    x, v = images(3, 2), {"w": images(3, 3)}
    f1 = sweep(Hiding(), v, x)[1]
    model = Hiding()
    with torch.no_grad():
        model.w += 1e-6 * v["w"]
        up = model(x)
        model.w -= 2e-6 * v["w"]
        torch.testing.assert_close(f1, (up - model(x)) / 2e-6, rtol=1e-6, atol=1e-6)


class WithDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.conv(x).tanh(), 0.5, self.training).mean((2, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dropout_has_the_mask_of_a_training_step(dtype: torch.dtype) -> None:
    """In float32 the sweep would turn the maps to channels last, and a mask is drawn in memory order."""
    model, x = WithDropout().to(dtype), images(5, 3, 8, 8).to(dtype)
    torch.manual_seed(11)
    expected = model(x)
    after = torch.get_rng_state()
    torch.manual_seed(11)
    found = expand(model, dict(model.named_parameters()), {}, {}, x)[0]
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)
    v = random_direction(model)
    for _ in range(2):
        torch.manual_seed(11)
        found = expand(model, dict(model.named_parameters()), v, {}, x)[0]
        torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)
        assert torch.equal(torch.get_rng_state(), after)


class Viewing(nn.Module):
    """Views that a map in channels last does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).tanh()
        constant = y.detach().view(y.shape[0], -1)
        return self.head(y.view(y.shape[0], -1) * constant)


@pytest.mark.parametrize("whole", [True, False], ids=["taylor", "plain"])
def test_single_precision_agrees_with_double(whole: bool) -> None:
    """On the CPU a sweep in float32 lays maps out as channels last; in float64 it does not."""
    x, y = images(6, 3, 4, 4), labels(6, 3)
    for model in (resnet(), Viewing().double()):
        v = random_direction(model)
        v = v if whole else {name: v[name] for name in list(v)[:1]}
        fine = split_terms(F.cross_entropy, *sweep(model, v, x), y)
        single = copy.deepcopy(model).float()
        coarse = split_terms(F.cross_entropy, *sweep(single, {n: t.float() for n, t in v.items()}, x.float()), y)
        scale = abs(fine[1]) + abs(fine[2])
        assert all(abs(a - b) <= 1e-4 * scale for a, b in zip(fine, coarse, strict=True))


def test_the_model_stays_bit_for_bit() -> None:
    model, x = resnet().float(), images(6, 3, 8, 8).float()
    before, kept = copy.deepcopy(model.state_dict()), x.clone()
    sweep(model, random_direction(model), x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and type(p) is nn.Parameter for p in model.parameters())
    assert torch.equal(x, kept)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    "make",
    [resnet, lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 3)).double()],
    ids=["resnet", "mlp"],
)
@pytest.mark.parametrize("shared", [False, True])
def test_vmap_over_replicas(make: Any, shared: bool) -> None:
    models = [make() for _ in range(3)]
    for seed, model in enumerate(models):
        for p in model.parameters():
            p.data.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))
    x, y = images(3, 6, 3, 8, 8), labels(6, 3)
    params = [dict(m.named_parameters()) for m in models]
    directions = [random_direction(m, seed=i) for i, m in enumerate(models)]
    stack = lambda dicts: {n: torch.stack([d[n].detach() for d in dicts]) for n in dicts[0]}  # noqa: E731
    if shared:  # one point, several directions
        params, models, x = params[:1] * 3, models[:1] * 3, x[:1].expand(3, -1, -1, -1, -1)

    def split(p: Any, v: Any, b: Any, one: Tensor) -> Any:
        return split_terms(F.cross_entropy, *expand(models[0], p, v, b, one), y)

    buffers = [dict(m.named_buffers()) for m in models]
    if shared:
        first = {n: p.detach() for n, p in params[0].items()}
        found = torch.func.vmap(split, in_dims=(None, 0, None, None))(first, stack(directions), buffers[0], x[0])
    else:
        found = torch.func.vmap(split)(stack(params), stack(directions), stack(buffers) if buffers[0] else {}, x)
    for i in range(3):
        alone = split(params[i], directions[i], buffers[i], x[i])
        for a, b in zip(found, alone, strict=True):
            torch.testing.assert_close(a[i], b, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_compiled_rules() -> None:
    model, x, y = resnet().float(), images(6, 3, 8, 8).float(), labels(6, 3)
    v = random_direction(model)
    eager = split_terms(F.cross_entropy, *sweep(model, v, x), y)
    compiled = split_terms(F.cross_entropy, *sweep(model, v, x, compiled=True), y)
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert_split(resnet(), F.cross_entropy, x.double(), y, compiled=True)
    assert_expansion(First(nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True), 2, 3, 8), compiled=True)


def test_without_a_compiler_the_rules_run_as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.curvature.taylor import kernels

    def none(*_: Any, **__: Any) -> Any:
        def fail(*_: Any, **__: Any) -> Any:
            raise RuntimeError("no C++ compiler")

        return fail

    monkeypatch.setattr(kernels, "_broken", False)
    monkeypatch.setattr(torch, "compile", none)
    model = nn.Sequential(nn.Linear(4, 4), nn.Softsign(), nn.Sigmoid(), nn.Softplus(threshold=17)).double()
    with pytest.warns(RuntimeWarning, match="no C\\+\\+ compiler"):
        assert_expansion(First(model, 2, 4), compiled=True)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no cuda device")
def test_cuda() -> None:
    model, x, y = resnet(), images(6, 3, 8, 8), labels(6, 3)
    v = random_direction(model)
    here = split_terms(F.cross_entropy, *sweep(model, v, x), y)
    there = split_terms(F.cross_entropy, *sweep(model.cuda(), {n: t.cuda() for n, t in v.items()}, x.cuda()), y.cuda())
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-9, atol=1e-9)
