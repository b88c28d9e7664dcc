"""Tables at the end: what stands in brackets is text, not markup."""

import io
from pathlib import Path

import pytest
from make_runs import make_run
from omegaconf import OmegaConf
from rich.console import Console

from runner.ending import Ended
from runner.jobs import Job, final_table, live_table
from runner.plan import Estimate, Group, table
from runner.summary import summarise

NAME = "probe=[fd] [/tmp/a.pt]"


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_of_jobs(console: Console) -> None:
    job = Job((NAME,), Path("run"), steps=1, note="found [/c]", values={"[/d]": 1.0})
    for shown in (final_table([job]), live_table([job], [job])):
        console.print(shown)
    assert said(console).count(NAME) == 2
    assert "found [/c]" in said(console)
    assert "[/d] 1" in said(console)


def test_of_a_plan(console: Console) -> None:
    console.print(table([Group(OmegaConf.create(), NAME, [1.0])], [Estimate(1, 1, 1, 1.0, 0.0, 0.0, 1, 1, 1)]))
    assert NAME in said(console)


def test_of_a_run(tmp_path: Path, console: Console) -> None:
    metrics = "step,replica,train_loss,train_error,test_loss,test_error,grad_norm\n0,0,0.5,0,,,1\n"
    folder = make_run(tmp_path / "w[b]" / "[c]", {}, metrics=metrics)
    summarise(folder, Ended("finished", 1, "of [/c]"), console)
    assert "w[b]/[c]" in said(console)
    assert "[/c]" in said(console)
