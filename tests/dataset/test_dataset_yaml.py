"""What every yaml of a data set promises."""

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from runner.config import CONF_DIR

FOLDER = Path(CONF_DIR) / "dataset"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "custom")
GROUPS = ["arch", "loss", "schedule", "init", "optimizer"]


def read(name: str) -> DictConfig:
    content = OmegaConf.load(FOLDER / f"{name}.yaml")
    assert isinstance(content, DictConfig)
    return content


@pytest.mark.parametrize("name", NAMES)
def test_keys_are_the_factorys_arguments(name: str) -> None:
    node = read(name).dataset
    factory = get_object(node._target_)
    assert factory.__name__ == name
    parameters = inspect.signature(factory).parameters
    assert set(node) - {"_target_"} == set(parameters)
    for key, parameter in parameters.items():
        value = OmegaConf.to_container(node, resolve=False)[key]  # type: ignore[index, call-overload]
        if parameter.default not in (None, parameter.empty):
            assert value == parameter.default, key


@pytest.mark.parametrize("name", NAMES)
def test_brings_what_the_paper_used_with_it(name: str) -> None:
    content = read(name)
    chosen = {key.removeprefix("override /"): value for entry in content.defaults for key, value in entry.items()}
    assert list(chosen) == GROUPS
    for group, value in chosen.items():
        assert (FOLDER.parent / group / f"{value}.yaml").exists()
    assert content.recipe.lr > 0
    assert {"batch_size", "epochs", "log_every"} <= set(content)
