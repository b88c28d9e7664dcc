"""Runs that are killed: at random instants, and at every operation on a file.

python -m pytest -m slow -s tests/faults/test_deaths.py      # 100 deaths at random instants, and one at every operation
"""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from fork_server import PHASES, ForkServer
from surviving import SETTINGS, SMALL, run_in, same


def die_at_random(server: ForkServer, tmp_path: Path, name: str, deaths: int) -> Counter[str]:
    """Kill runs at random instants of each phase, over and over until each comes to its end; where they were."""
    said, phase, chance, fell = tmp_path / "said", tmp_path / "phase", random.Random(name), Counter[str]()
    whole = run_in(tmp_path / "whole", *SETTINGS[name])
    wall = json.loads((whole / "meta.json").read_text())["wall_seconds"]
    for number in range(10 * deaths):
        folder, code = tmp_path / f"cut{number}", -9
        while code == -9:
            phase.write_bytes(b"\0")
            run = server.start([*SETTINGS[name], f"hydra.run.dir={folder}"], said, ["watch", str(phase)])
            aim = chance.choice(PHASES)
            if fell.total() == deaths:
                code = server.end(run)
            elif aim == "starting":
                code = server.end(run, chance.uniform(0, 1))
            else:
                code = server.end(run, chance.uniform(0, wall / 2), (str(phase), aim, chance.uniform(0, 3e-3)))
            fell[PHASES[phase.read_bytes()[0]]] += code == -9
        assert code == 0, said.read_text()
        same(folder, whole)
        if fell.total() == deaths:
            return +fell
    raise AssertionError(f"{fell.total()} deaths in {number} runs")


@pytest.mark.parametrize(("name", "deaths"), [("minibatches", 4), ("replicas", 4), ("convolutions", 2)])
def test_a_killed_run_goes_on_to_the_same_bytes(server: ForkServer, tmp_path: Path, name: str, deaths: int) -> None:
    die_at_random(server, tmp_path, name, deaths)


@pytest.mark.slow
def test_a_hundred_deaths(server: ForkServer, tmp_path: Path) -> None:
    fell = Counter[str]()
    for name, deaths in (("minibatches", 40), ("replicas", 40), ("convolutions", 20)):
        (tmp_path / name).mkdir()
        fell += die_at_random(server, tmp_path / name, name, deaths)
    print(
        f"\nkilled {fell.total()} times, all finished with the bytes of the undisturbed run; deaths while {dict(fell)}"
    )


SHORT = [*SMALL, "batch_size=20", "optimizer=adam", "steps=2", "probe=[split,spectrum,snapshot]"]


def die_at_operation(server: ForkServer, tmp_path: Path, number: int) -> bool:
    """Kill a run at its n-th operation on a file; False if it has fewer."""
    folder, said = tmp_path / f"cut{number}", tmp_path / "said"
    code = server([*SHORT, f"hydra.run.dir={folder}"], said, ["die_at", number])
    assert code in (0, -9), said.read_text()
    if code == -9:
        assert server([*SHORT, f"hydra.run.dir={folder}"], said) == 0, said.read_text()
    same(folder, tmp_path / "whole")
    return code == -9


def test_death_at_a_file_operation(server: ForkServer, tmp_path: Path) -> None:
    run_in(tmp_path / "whole", *SHORT)
    for number in random.Random(0).sample(range(1, 80), 4):
        assert die_at_operation(server, tmp_path, number)


@pytest.mark.slow
def test_death_at_every_file_operation(server: ForkServer, tmp_path: Path) -> None:
    run_in(tmp_path / "whole", *SHORT)
    number = 1
    while die_at_operation(server, tmp_path, number):
        number += 1
    assert number > 80
    print(
        f"\nkilled at each of {number - 1} file operations of a run, all finished with the bytes of the undisturbed one"
    )
