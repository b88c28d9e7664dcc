"""Scripts as a user calls them, without a process of their own."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
Call = Callable[..., list[str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """`call("plot", folder)` is `python scripts/plot.py folder`; the lines that it prints are returned."""

    def run(script: str, *arguments: object) -> list[str]:
        path = SCRIPTS / f"{script}.py"
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        capfd.readouterr()
        runpy.run_path(str(path), run_name="__main__")
        return capfd.readouterr().out.splitlines()

    return run


@pytest.fixture
def refused(call: Call, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one sentence with which a script refuses these arguments."""

    def run(script: str, *arguments: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            call(script, *arguments)
        assert stopped.value.code == 2
        said = capfd.readouterr().err
        assert said.startswith(f"{script}: ")
        assert "Traceback" not in said
        return said

    return run
