"""scripts/report.py on a sweep made by hand, and its page in a real browser where there is one."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake import fake_sweep
from make_runs import make_run

from runner.errors import BadInput
from runner.report.page import Section, markdown, page
from runner.report.statistics import Outcome
from runner.report.study import Claim, Finding, Runs, Study, judged, sweep_of

SCRIPT = Path(__file__).parents[2] / "scripts" / "report.py"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def sweep(folder: Path) -> Path:
    """Figure 2 of two widths and three seeds, with curvatures that decay."""
    jobs = []
    for width in (1.0, 2.0):
        for seed in range(3):
            g = np.exp(-np.arange(20.0) / 5) * (1 + seed)
            parts = {"split_gHg": g * 1.1 / width, "split_gGg": g / width, "split_gHrg": g * 0.1 / width}
            frame = pd.DataFrame({"step": range(20), "epoch": range(20), "train_loss": g, "grad_norm": g, **parts})
            jobs.append(({"width": width, "seed": seed}, {"metrics": frame}))
    return fake_sweep(folder, "convex_fig2", jobs)


def report(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = sweep(tmp_path_factory.mktemp("report") / "fig2")
    ended = report(folder, "--markdown", folder / "table.md")
    assert ended.returncode == 0, ended.stderr
    assert "convex_fig2 seldom negative: holds" in ended.stdout
    return folder


def test_the_page_is_one_file(made: Path) -> None:
    text = (made / "report.html").read_text()
    assert not re.search(r"""(src|srcset|href)=["'](?!data:|#)""", text)
    assert "<script" not in text
    assert text.count("data:image/png;base64,") == 4  # two figures, by light and by dark
    assert "python -m runner -m experiment=convex_fig2 scale=small" in text
    assert "# @package _global_" in text
    assert "undecided at this scale" in text


def test_figures_are_files_too(made: Path) -> None:
    names = {path.name for path in (made / "figures").iterdir()}
    assert names == {f"convex_fig2-{plot}.{kind}" for plot in ("training", "starts") for kind in ("png", "svg")}


def test_the_table_of_verdicts(made: Path) -> None:
    text = (made / "table.md").read_text()
    summary, chapter = text.split("## convex_fig2")
    assert summary.count("\n| ") == 2 + 4
    assert all(line.replace("\\|", "").count("|") == 5 for line in chapter.splitlines() if line.startswith("|"))
    assert "(figures/convex_fig2-training.png)" in chapter


def test_refused_in_a_sentence(tmp_path: Path) -> None:
    ended = report(tmp_path)
    assert (ended.returncode, ended.stderr.startswith("report: ")) == (2, True)
    assert "found no meta.json" in ended.stderr
    assert report(sweep(tmp_path / "a"), "--experiment", "nothing").returncode == 2


def test_an_archive_will_do(made: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "fig2"), "xztar", made.parent, made.name)
    ended = report(archive, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "convex_fig2 seldom negative: holds" in ended.stdout
    assert (tmp_path / "outputs" / "fig2" / "report.html").exists(), "not among the archives"


@pytest.mark.parametrize("name", ["../out.csv", "link"])
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = (tarfile.SYMTYPE, "/etc/passwd") if name == "link" else (tarfile.REGTYPE, "")
    with tarfile.open(tmp_path / "odd.tar", "w") as archive:
        archive.addfile(member)
    ended = report(tmp_path / "odd.tar")
    assert ended.returncode == 2
    assert "it cannot be unpacked" in ended.stderr
    assert not list(tmp_path.rglob("out.csv"))


def test_a_figure_that_cannot_be_drawn_is_left_out(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "a")
    for path in folder.rglob("metrics.csv"):
        pd.read_csv(path).drop(columns="split_gGg").to_csv(path, index=False)
    ended = report(folder)
    assert ended.returncode == 0, ended.stderr
    assert "convex_fig2-training cannot be drawn" in ended.stderr
    assert (folder / "figures" / "convex_fig2-starts.png").exists()


def test_runs_without_what_a_rule_needs_leave_it_open(tmp_path: Path) -> None:
    claim = Claim("a", "a claim", "a rule", lambda runs: Finding(Outcome.HOLDS, str(runs.metrics["no such column"])))
    assert judged(claim, Runs(sweep(tmp_path / "a"))).outcome is Outcome.UNDECIDED


def test_runs_that_have_not_come_to_their_end_are_left_out(tmp_path: Path) -> None:
    """As in a sweep that is still under way: what such a run measured last is not its end."""
    folder = sweep(tmp_path / "a")
    for number, status in ((0, "running"), (3, None), (4, "failed"), (5, "diverged")):
        path = folder / f"run{number}" / "status.json"
        path.unlink() if status is None else path.write_text(json.dumps({"status": status, "step": 3}))
    runs = Runs(folder)
    assert set(runs.metrics["run"]) == {"run1", "run2", "run5"}
    assert (
        runs.told == "3 runs: 2 at width 1, 1 at width 2; diverged: 1 network; left out: 1 running, 1 unknown, 1 failed"
    )
    for path in folder.iterdir():
        (path / "status.json").write_text(json.dumps({"status": "interrupted", "step": 3}))
    ended = report(folder)
    assert ended.returncode == 2
    assert "should hold runs that came to their end, found 6 interrupted" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_of_several_folders_those_without_an_experiment_are_passed_over(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    ended = report(folder, tmp_path / "empty")
    assert ended.returncode == 0, ended.stderr
    assert f"passed over: {tmp_path / 'empty'} should be a run's folder or hold some" in ended.stderr


def test_networks_that_diverged_leave_a_rule_open_that_does_not_know_of_them(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "a")
    rule: tuple[Any, ...] = ("a", "a claim", "a rule", lambda runs: Finding(Outcome.HOLDS, "Found."))
    assert judged(Claim(*rule), Runs(folder)) == Finding(Outcome.HOLDS, "Found.")
    (folder / "run5" / "status.json").write_text(json.dumps({"status": "diverged", "step": 3}))
    found = judged(Claim(*rule), Runs(folder))
    assert found.outcome is Outcome.UNDECIDED
    assert found.measured == "Found. Left open: 1 diverged, of whose end the rule knows nothing."
    assert judged(Claim(*rule, of_diverged=True), Runs(folder)).outcome is Outcome.HOLDS


def test_replicas_that_diverged_are_counted_one_by_one(tmp_path: Path) -> None:
    about = {"experiment": "convex_fig2", "width": 1.0, "replicas": 3}
    make_run(tmp_path / "a", about, replicas={1: "diverged"}, metrics="step,replica,train_loss\n0,0,1\n0,1,1\n0,2,1\n")
    assert Runs(tmp_path).diverged == 1


def configured(folder: Path, number: int, **values: Any) -> None:
    path = folder / f"run{number}" / "meta.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({**meta, "config": {**meta["config"], **values}}))


def test_runs_of_other_settings_are_refused(tmp_path: Path) -> None:
    """As after the same experiment with another rate, in the same folder."""
    folder = sweep(tmp_path / "a")
    for number in range(6):
        configured(folder, number, optimizer={"lr": 0.1}, dataset={"seed": number % 3})
    Runs(folder).check_settings(["width", "seed"])
    for number in (0, 3):
        configured(folder, number, optimizer={"lr": 0.2})
    ended = report(folder)
    assert ended.returncode == 2
    assert "should hold runs of one optimizer.lr, found 4 with 0.1, 2 with 0.2" in ended.stderr
    Runs(folder).check_settings(["width", "optimizer.lr"])
    Runs(folder).check_settings(["optimizer"])
    configured(folder, 1, experiment="convex_thm1")
    with pytest.raises(BadInput, match="runs of one experiment, found convex_fig2, convex_thm1"):
        Runs(folder).check_settings(["optimizer"])


def test_what_an_experiment_sweeps() -> None:
    assert list(sweep_of("convex_fig2_linear")) == list(sweep_of("convex_fig2")) == ["seed", "width"]


def test_a_remark_that_lacks_its_columns_is_left_out(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "a")
    ended = report(folder, "--experiment", "convex_fig1_exact", "--out", tmp_path / "new" / "r.html")
    assert ended.returncode == 0, ended.stderr
    assert "report: no remark: " in ended.stderr
    assert (tmp_path / "new" / "r.html").exists()


def test_what_is_said_is_escaped() -> None:
    claim = Claim("a", "x < y & z", "if |x| < 1", lambda runs: Finding(Outcome.FAILS, ""))
    study = Study("a <title>", "paper", "setting", (claim,), ())
    section = Section(
        study, "name", "small", "3 runs", "cmd", "a: 1", [(claim, Finding(Outcome.FAILS, "1 < 2"))], [], ""
    )
    text = page("t", [section])
    assert "x &lt; y &amp; z" in text
    assert "a <title>" not in text
    assert "if \\|x\\| < 1" in markdown("t", [section], ".")
    assert "✗ does not hold" in text


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
@pytest.mark.parametrize("size", ["390,844", "1280,900"])
def test_in_a_browser(made: Path, tmp_path: Path, size: str) -> None:
    """On a phone and on a screen: no errors, every picture there, nothing wider than the window."""
    probe = """<script>onload = () => { document.title = JSON.stringify([
        document.documentElement.scrollWidth <= innerWidth, [...document.images].every(i => i.naturalWidth > 0),
        document.images.length]) }</script>"""
    copy = tmp_path / "page.html"
    copy.write_text((made / "report.html").read_text().replace("</body>", f"{probe}</body>"))
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={size}",
        "--enable-logging=stderr",
    ]
    ended = subprocess.run([*command, "--dump-dom", copy.as_uri()], capture_output=True, text=True, timeout=120)
    assert "<title>[true,true,2]</title>" in ended.stdout, ended.stdout[:500]
    assert "CONSOLE" not in ended.stderr


def test_the_command_says_which_part_of_the_sweep_was_run(tmp_path: Path) -> None:
    jobs = [({"width": float(width), "seed": seed}, {}) for width in (1, 4) for seed in (0, 1)]
    folder = fake_sweep(tmp_path, "convex_fig2", jobs)
    for number, (width, seed) in enumerate((width, seed) for width in (1, 4) for seed in (0, 1)):
        (folder / f"run{number}" / ".hydra").mkdir(exist_ok=True)
        (folder / f"run{number}" / ".hydra" / "overrides.yaml").write_text(
            f"[width={width}, seed={seed}, steps=3, device=cpu, name=x]"
        )
    runs = Runs(folder)
    said = runs.command({"width": ["1", "4", "8"], "seed": ["0", "1"]})
    assert said == f"python -m runner -m experiment=convex_fig2 scale={runs.scale} steps=3 name=x width=1,4"
    more = runs.command({"width": ["4"], "seed": ["0", "1"]})
    assert more == f"python -m runner -m experiment=convex_fig2 scale={runs.scale} steps=3 name=x width=4,1"


@pytest.mark.parametrize(
    ("given", "form"),
    [
        ("[seed=1, width=4, name=x, device=cpu, scale=small]", "small"),
        ("[dataset.train_size=9]", "small, changed"),
        ("[+optimizer.foreach=false]", "small, changed"),
        ("[recipe.lr=0.05]", "small, changed"),
    ],
)
def test_the_form_says_whether_something_was_changed_by_hand(tmp_path: Path, given: str, form: str) -> None:
    runs = Runs(sweep(tmp_path))
    for folder in runs.folders:
        (folder / ".hydra").mkdir(exist_ok=True)
        (folder / ".hydra" / "overrides.yaml").write_text(given)
    assert runs.form(["width", "seed"]) == form


def test_two_forms_of_an_experiment_have_each_their_own_name(tmp_path: Path) -> None:
    first, second = sweep(tmp_path / "one"), sweep(tmp_path / "two")
    ended = report(first, second, "--out", tmp_path / "report.html", "--markdown", tmp_path / "table.md")
    assert ended.returncode == 0, ended.stderr
    names = {path.name for path in (tmp_path / "figures").glob("*-training.png")}
    assert names == {"one-training.png", "two-training.png"}
    text = (tmp_path / "table.md").read_text()
    assert "[two](#two) (small)" in text
    assert text.count("## one\n") == text.count("## two\n") == 1
    assert "two seldom negative: holds" in ended.stdout
    ended = report(first, sweep(tmp_path / "other" / "one"), "--out", tmp_path / "report.html")
    assert ended.returncode == 2
    assert "should have names of their own, found two one" in ended.stderr
