"""A page with the figures of sweeps and a verdict on each claim, as report.html, and the figures as PNG and SVG.

python scripts/report.py outputs/convex_fig2-small
python scripts/report.py outputs/* --out report.html --markdown REPRODUCTION.md
"""

import argparse
import lzma
import os
import shutil
import sys
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt

from runner.config import CONF_DIR
from runner.errors import BadInput
from runner.report.page import Drawn, Section, markdown, page
from runner.report.study import Plot, Runs, Study, judged, study, sweep_of
from runner.report.style import image, theme
from runner.script import sentences


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="each holds an experiment's runs; or is an archive of it")
    parser.add_argument("--experiment", help="judge the runs as this one; default: the one that made them")
    parser.add_argument(
        "--out", type=Path, help="the page; default: report.html in the first folder, of an archive in outputs/<name>"
    )
    parser.add_argument(
        "--figures", type=Path, help="folder of the PNG and SVG files; default: figures beside the page"
    )
    parser.add_argument("--markdown", type=Path, help="write it here too, as a text with links to the figures")
    return parser.parse_args()


def unpacked(folder: Path, place: Path) -> Path:
    """The folder itself, or what an archive of one holds."""
    if folder.is_dir() or not folder.is_file():
        return folder
    target = place / folder.name.split(".")[0]
    try:
        with tarfile.open(folder) as archive:
            extract(archive, target)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise BadInput(
            f"{folder} should be a folder of runs, or a tar archive of one; it cannot be unpacked"
        ) from error
    inside = list(target.iterdir())
    return inside[0] if len(inside) == 1 else target


def extract(archive: tarfile.TarFile, target: Path) -> None:
    """Its files and folders, all of them below `target`; tarfile's own filter for that is not in every Python 3.11."""
    target.mkdir(parents=True)
    for member in archive:
        path = (target / member.name).resolve()
        content = archive.extractfile(member) if member.isreg() else None
        if not path.is_relative_to(target.resolve()) or (content is None and not member.isdir()):
            raise tarfile.TarError(f"{member.name} is neither a file nor a folder inside")
        (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            with path.open("wb") as out:
                shutil.copyfileobj(content, out)


def section(folder: Path, experiment: str | None, figures: Path, own: str) -> Section:
    """An experiment's runs, judged and drawn, with files of its `own` name."""
    runs = Runs(folder)
    name = experiment or runs.experiment
    if name is None:
        raise BadInput(f"{folder} should hold the runs of an experiment, found other runs; name one by --experiment")
    about = study(name)
    sweep = sweep_of(name, runs.scale)
    runs.check_settings(sweep)
    figures.mkdir(parents=True, exist_ok=True)
    findings = [(claim, judged(claim, runs)) for claim in about.claims]
    drawn = [picture for plot in about.plots if (picture := draw(plot, runs, figures / own))]
    config = Path(CONF_DIR) / "experiment" / f"{name}.yaml"
    text = config.read_text() if config.exists() else ""
    scale, command = runs.form(sweep), runs.command(sweep)
    return Section(about, own, scale, runs.told, command, text, findings, drawn, remark(about, runs))


def remark(about: Study, runs: Runs) -> str:
    """Empty where the runs lack what it speaks of, which is said."""
    try:
        return about.remark(runs)
    except (BadInput, LookupError, ValueError) as error:
        print(f"report: no remark: {error!r}", file=sys.stderr)
        return ""


def draw(plot: Plot, runs: Runs, stem: Path) -> Drawn | None:
    """The plot by light and by dark; by light also as files. None where the runs lack what it shows, which is said."""
    pictures = {}
    for ground in ("light", "dark"):
        with theme(ground):
            try:
                figure = plot.draw(runs)
            except (BadInput, LookupError, ValueError) as error:
                why = error if isinstance(error, BadInput) else f"{runs.told} lack settings that it shows ({error!r})"
                print(f"report: {stem.name}-{plot.name} cannot be drawn: {why}", file=sys.stderr)
                return None
            pictures[ground] = image(figure, "png")
            if ground == "light":
                for kind in ("png", "svg"):
                    stem.with_name(f"{stem.name}-{plot.name}.{kind}").write_bytes(image(figure, kind))
            plt.close(figure)
    return Drawn(plot, pictures["light"], pictures["dark"])


def names_of(folders: Sequence[Path], experiment: str | None) -> list[str]:
    """For each folder that of its experiment, and its own where several are of one."""
    found = [experiment or experiment_of(folder) or str(folder) for folder in folders]
    names = [folder.name if found.count(name) > 1 else name for folder, name in zip(folders, found, strict=True)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInput(f"folders of one experiment should have names of their own, found two {twice[0]}")
    return names


def experiment_of(folder: Path) -> str | None:
    """None where a folder holds none."""
    try:
        return Runs(folder).experiment
    except BadInput:
        return None


def sections_of(folders: Sequence[Path], experiment: str | None, figures: Path) -> list[Section]:
    """One of each folder. Of several, those without an experiment's finished runs are passed over, which is said."""
    found = list[Section]()
    for folder, own in zip(folders, names_of(folders, experiment), strict=True):
        try:
            found.append(section(folder, experiment, figures, own))
        except BadInput as error:
            if len(folders) == 1:
                raise
            print(f"report: passed over: {error}", file=sys.stderr)
    if not found:
        raise BadInput("one of the folders should hold the finished runs of an experiment, found none")
    return found


def reported(options: argparse.Namespace) -> Path:
    """The page's file. Raises BadInput."""
    first = options.folders[0]
    out: Path = options.out or (first if first.is_dir() else Path("outputs", first.name.split(".")[0])) / "report.html"
    figures = options.figures or out.parent / "figures"
    with TemporaryDirectory() as place:
        folders = [unpacked(folder, Path(place)) for folder in options.folders]
        sections = sections_of(folders, options.experiment, figures)
    title = sections[0].study.title if len(sections) == 1 else "What the runs say about the papers' claims"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(title, sections))
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        relative = os.path.relpath(figures, options.markdown.parent)
        options.markdown.write_text(markdown(title, sections, relative))
    for one in sections:
        for claim, finding in one.findings:
            print(f"{one.name} {claim.name}: {finding.outcome}. {finding.measured}")
    return out


def main() -> None:
    with sentences("report"):
        print(reported(arguments()))


if __name__ == "__main__":
    main()
