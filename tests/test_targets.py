"""Configs against the signatures of what they make."""

from collections.abc import Sequence
from typing import Literal

import pytest
from omegaconf import DictConfig, OmegaConf

from runner.errors import BadInput
from runner.targets import fits, make


class Thing:
    def __init__(
        self, size: int, rate: float = 1.0, kind: Literal["a", "b"] = "a", at: Sequence[int] | None = None
    ) -> None:
        if rate < 0:
            raise ValueError(f"rate {rate} is negative")
        self.size, self.rate, self.kind, self.at = size, rate, kind, at


def node(**keys: object) -> DictConfig:
    return OmegaConf.create({"_target_": f"{__name__}.Thing", **keys})


def test_a_fitting_config_makes_the_thing() -> None:
    thing = make(node(size=3, rate=2, at=[1, 2]), "thing")
    assert (thing.size, thing.rate, thing.kind, thing.at) == (3, 2, "a", [1, 2])
    assert make(node(size=None), "thing", size=5, unknown=1).size == 5


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"size": "x"}, r"thing.size should be an integer, found 'x'"),
        ({"size": True}, r"thing.size should be an integer, found"),
        ({"size": 1.5}, r"thing.size should be an integer, found"),
        ({"size": 1, "sise": 2}, r"thing.sise is no key of Thing; it takes size"),
        ({"size": 1, "kind": "c"}, r"thing.kind should be a or b, found"),
        ({"size": 1, "at": [1, "x"]}, r"thing.at should be null or a list, each an integer, found"),
        ({}, r"thing.size is required"),
        ({"size": "???"}, r"thing.size should be given"),
        ({"size": 1, "rate": -1.0}, r"thing: rate -1.0 is negative"),
    ],
)
def test_what_does_not_fit_is_refused(keys: dict, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make(node(**keys), "thing")


@pytest.mark.parametrize("target", ["", "no.such.module", "torch.nn.NoSuchThing", "torch.nn"])
def test_an_unknown_target_is_refused(target: str) -> None:
    with pytest.raises(BadInput, match=r"thing\._target_"):
        make(OmegaConf.create({"_target_": target}), "thing")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("torch.nn.Linaer", "torch.nn has no Linaer; it has Linear"),
        (f"{__name__}.Other", f"{__name__} has no Other; it has Thing$"),
        ("nowhere.Thing", "cannot be imported: No module named 'nowhere'$"),
    ],
)
def test_what_there_is_instead(target: str, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInput, match=words):
        make(OmegaConf.create({"_target_": target}), "thing")
    assert capfd.readouterr() == ("", "")


def test_fits() -> None:
    assert fits([0.9, 0.999], tuple[float, float])
    assert fits(None, int | None)
    assert fits(1, float)
    assert not fits(None, int)
    assert not fits("1", float)
    assert not fits(1, Sequence[int])
