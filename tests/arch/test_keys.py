"""Every yaml of these groups names exactly the arguments of what it makes."""

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

CONF = Path(__file__).parents[2] / "conf"
GIVEN = {"input_shape", "params"}  # by the builder


def load(path: Path) -> DictConfig:
    """With the keys of another choice of its group that it builds on."""
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    bases = [
        load(path.with_stem(base)) for base in config.pop("defaults", []) if base.isidentifier() and base != "_self_"
    ]
    merged = OmegaConf.merge(*bases, config)
    assert isinstance(merged, DictConfig)
    return merged


def made(*groups: str) -> list:
    files = [path for group in groups for path in sorted((CONF / group).glob("*.yaml"))]
    return [
        pytest.param(path, id=f"{path.parent.name}-{path.stem}")
        for path in files
        if not OmegaConf.is_missing(load(path), "_target_")
    ]


@pytest.mark.parametrize("path", made("arch", "init", "loss", "schedule"))
def test_keys_equal_the_constructors_arguments(path: Path) -> None:
    config = load(path)
    arguments = set(inspect.signature(get_object(config._target_)).parameters) - GIVEN
    assert {str(key) for key in config} - {"_target_"} == arguments


@pytest.mark.parametrize("path", made("optimizer"))
def test_keys_are_among_the_optimizers_arguments(path: Path) -> None:
    config = load(path)
    arguments = set(inspect.signature(get_object(config._target_)).parameters) - GIVEN
    assert {str(key) for key in config} - {"_target_", "_convert_"} <= arguments
