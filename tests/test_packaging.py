"""What a wheel would contain."""

from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_package_is_listed() -> None:
    """A package that setup.cfg does not list is missing from the wheel, and from nothing else."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "runner").rglob("__init__.py")}
    assert listed == found | {"runner.conf"}
