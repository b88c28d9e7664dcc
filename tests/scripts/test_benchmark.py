"""Every benchmark runs, and leaves its table."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark.py"
COMMANDS = {
    "train": "--settings default resnet8 --steps 1 --rounds 1",
    "pieces": "--settings default --steps 3",
    "probes": "--settings default --probes fd --steps 2 --rounds 1",
    "input": "--workers 0 --rounds 1",
    "growth": "--widths 0.1 0.2 --width 0.1 --batches 4 --batch 4 --blocks 1 --rounds 1",
    "memory": "--setting default --override width=1 --steps 1 --rounds 1",
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_it_runs_and_leaves_its_table(tmp_path: Path, command: str) -> None:
    pytest.importorskip("torchvision")
    subprocess.run([sys.executable, SCRIPT, command, *COMMANDS[command].split(), "--out", tmp_path], check=True)
    frame = pd.read_csv(tmp_path / f"{command}.csv")
    numbers = frame.select_dtypes("number")
    assert len(frame) > 1
    assert numbers.drop(columns=["error"], errors="ignore").notna().any().all()
