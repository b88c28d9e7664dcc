import pytest
import torch
from torch import nn

from runner.arch.rnn import RNN
from runner.errors import BadInput


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (3, 4)])
def test_is_pytorchs_recurrent_network_with_a_head(activation: str, shape: tuple[int, ...]) -> None:
    model = RNN(shape, 3, base_width=6, activation=activation).double()  # type: ignore[arg-type]
    x = torch.randn(7, *shape, dtype=torch.float64)
    sequence = {1: lambda: x[:, :, None], 2: lambda: x, 3: lambda: x.permute(0, 2, 1, 3).flatten(2)}[len(shape)]()
    reference = nn.RNN(sequence.shape[2], 6, nonlinearity=activation, batch_first=True).double()
    with torch.no_grad():
        reference.weight_ih_l0.copy_(model.input.weight)
        reference.weight_hh_l0.copy_(model.recurrent.weight)
        reference.bias_ih_l0.copy_(model.input.bias)
        reference.bias_hh_l0.zero_()
    torch.testing.assert_close(model(x), model.head(reference(sequence)[1][0]))


def test_width_multiplies_the_hidden_units() -> None:
    model = RNN((1, 4, 4), 2, width=1.5, base_width=10, bias=False)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "input.weight": (15, 4),
        "recurrent.weight": (15, 15),
        "head.weight": (2, 15),
    }


def test_refuses_no_outputs() -> None:
    with pytest.raises(BadInput, match=r"arch\.outputs should be at least 1, found 0"):
        RNN((4,), 0)
