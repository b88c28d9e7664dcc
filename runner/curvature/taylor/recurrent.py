"""RNN, LSTM and GRU, unrolled in time: their fused kernels have no derivatives beyond the first."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from runner.curvature.taylor.registry import rule_for
from runner.curvature.taylor.tensor import UnsupportedOperation

State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State, Tensor], State]

_VF = torch._C._VariableFunctions


def _linear(x: Tensor, w: Tensor, b: Any) -> Tensor:
    return torch.nn.functional.linear(x, w, b)


def _vanilla(activation: Callable[[Tensor], Tensor]) -> Cell:
    def cell(gates_x: Tensor, state: State, gates_h: Tensor) -> State:
        return (activation(gates_x + gates_h),)

    return cell


def _lstm_cell(gates_x: Tensor, state: State, gates_h: Tensor) -> State:
    i, f, g, o = (gates_x + gates_h).chunk(4, -1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru_cell(gates_x: Tensor, state: State, gates_h: Tensor) -> State:
    r_x, z_x, n_x = gates_x.chunk(3, -1)
    r_h, z_h, n_h = gates_h.chunk(3, -1)
    z = (z_x + z_h).sigmoid()
    n = (n_x + (r_x + r_h).sigmoid() * n_h).tanh()
    return ((1 - z) * n + z * state[0],)


def _layer(cell: Cell, x: Tensor, state: State, weights: tuple[Any, ...], reverse: bool) -> tuple[Tensor, State]:
    """x (T, N, in): the outputs (T, N, hidden) and the last state. weights: W_x, W_h, b_x, b_h, projection."""
    w_x, w_h, b_x, b_h, projection = weights
    gates = _linear(x, w_x, b_x)
    outputs = []
    steps = range(x.shape[0])
    for t in reversed(steps) if reverse else steps:
        state = cell(gates[t], state, _linear(state[0], w_h, b_h))
        if projection is not None:
            state = (_linear(state[0], projection, None), *state[1:])
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if reverse else outputs), state


def _run(
    cell: Cell, input: Any, state: State, params: Any, has_biases: bool, num_layers: int, dropout: float, train: bool,
    bidirectional: bool, batch_first: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    if each not in ((4, 5) if has_biases else (2, 3)):
        raise UnsupportedOperation("a recurrent network", f"it has {each} weights for each layer")
    x = input.transpose(0, 1) if batch_first else input
    last: list[State] = []
    for layer in range(num_layers):
        outputs = []
        for side in range(directions):
            index = layer * directions + side
            w = list(params[index * each : (index + 1) * each])
            projection = w.pop() if each in (3, 5) else None
            w_x, w_h, b_x, b_h = w if has_biases else (*w, None, None)
            y, end = _layer(cell, x, tuple(s[index] for s in state), (w_x, w_h, b_x, b_h, projection), side == 1)
            outputs.append(y)
            last.append(end)
        x = torch.cat(outputs, -1) if bidirectional else outputs[0]
        if dropout and train and layer < num_layers - 1:
            x = torch.dropout(x, dropout, True)
    x = x.transpose(0, 1) if batch_first else x
    return (x, *(torch.stack(parts) for parts in zip(*last, strict=True)))


def _refuse_packed(flag: Any) -> None:
    if not isinstance(flag, bool):
        raise UnsupportedOperation("a recurrent network", "a packed sequence has no Taylor rule")


@rule_for(_VF.lstm)
def lstm(input: Any, hx: Any, params: Any, has_biases: Any, *settings: Any) -> tuple[Tensor, ...]:
    _refuse_packed(has_biases)
    return _run(_lstm_cell, input, tuple(hx), params, has_biases, *settings)


def _single(name: str, cell: Cell) -> None:
    @rule_for(getattr(_VF, name))
    def sequence(input: Any, hx: Any, params: Any, has_biases: Any, *settings: Any) -> tuple[Tensor, ...]:
        _refuse_packed(has_biases)
        return _run(cell, input, (hx,), params, has_biases, *settings)

    @rule_for(getattr(_VF, f"{name}_cell"))
    def step(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Tensor:
        return cell(_linear(input, w_ih, b_ih), (hx,), _linear(hx, w_hh, b_hh))[0]


_single("gru", _gru_cell)
_single("rnn_tanh", _vanilla(torch.tanh))
_single("rnn_relu", _vanilla(torch.relu))


@rule_for(_VF.lstm_cell)
def lstm_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> State:
    return _lstm_cell(_linear(input, w_ih, b_ih), tuple(hx), _linear(hx[0], w_hh, b_hh))
