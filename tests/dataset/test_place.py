import pytest
import torch

from runner.dataset import place as module
from runner.dataset.gaussian import gaussian
from runner.dataset.place import place


def test_nothing_is_copied_on_the_cpu() -> None:
    data = gaussian(dim=3, size=10, test_size=5)
    placed = place(data, torch.device("cpu"))
    assert placed.train.inputs is data.train.inputs
    assert placed.test is not None
    assert data.test is not None
    assert placed.test.labels is data.test.labels
    assert place(gaussian(dim=3, size=10), torch.device("cpu")).test is None


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a cuda device")
def test_on_the_device_where_it_fits_else_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    data, device = gaussian(dim=3, size=10, test_size=5), torch.device("cuda")
    placed = place(data, device)
    assert placed.train.inputs.is_cuda
    assert placed.test is not None
    assert placed.test.inputs.is_cuda
    assert place(placed, device).train.inputs is placed.train.inputs
    monkeypatch.setattr(module, "_room", lambda device: 0)
    assert place(placed, device).train.inputs is placed.train.inputs
    pinned = place(data, device).train
    assert pinned.inputs.is_pinned()
    assert pinned.labels.is_pinned()
