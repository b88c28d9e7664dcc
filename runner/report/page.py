"""One HTML file with everything in it: no script, no other file, for screens and phones, by light and by dark."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from runner.report.statistics import Outcome
from runner.report.study import Claim, Finding, Plot, Study

SIGNS = {Outcome.HOLDS: ("✓", "holds"), Outcome.FAILS: ("✗", "fails"), Outcome.UNDECIDED: ("?", "open")}

INTERVALS = (
    "Intervals hold with 95 %, over independent starts, on one draw of the data unless a sweep draws several. (n = 3) "
    "in the place of one: so few values, or few that are equal, do not tell how they spread. Shares of three or more "
    "runs that lie all at the same bound, 0 or 1, are taken as they are."
)

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c1e21; --soft: #5b6168; --line: #d9dce0; --card: #f6f7f9;
  --holds: #00664a; --fails: #a63c00; --open: #4d5866; }
@media (prefers-color-scheme: dark) { :root { --ground: #16181d; --ink: #dcdfe4; --soft: #9aa1ab; --line: #343942;
  --card: #1f2228; --holds: #4cc9a0; --fails: #ff9b5e; --open: #a9b4c2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 62rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { margin-top: 3rem; font-size: 1.3rem; line-height: 1.25; }
.paper, .soft, figcaption { color: var(--soft); font-size: .9rem; }
.verdict { font-weight: 600; } .holds { color: var(--holds); } .fails { color: var(--fails); }
.open { color: var(--open); }
.claim { background: var(--card); border-left: 4px solid currentColor; border-radius: 4px; margin: .8rem 0;
  padding: .6rem .9rem; } .claim > * { color: var(--ink); margin: .25rem 0; } .claim > .verdict { color: inherit; }
figure { margin: 1.4rem 0; } figure img { max-width: 100%; height: auto; display: block; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; width: 100%; }
.verdicts th { padding-top: 1.2rem; } .verdicts td:last-child { width: 8.5rem; }
td, th { text-align: left; vertical-align: top; padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line); }
pre { overflow-x: auto; background: var(--card); padding: .6rem; border-radius: 4px; font-size: .85rem; }
@media (max-width: 40rem) { figure { overflow-x: auto; } figure img { max-width: none; width: 46rem; } }
a { color: inherit; } summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
"""


@dataclass(frozen=True)
class Drawn:
    """A plot with its pictures as PNG bytes for either ground."""

    plot: Plot
    light: bytes
    dark: bytes


@dataclass(frozen=True)
class Section:
    """A study, judged and drawn. `scale`, `runs` (how many) and `command` say which runs it is about, `config` what the
    experiment changes (its yaml)."""

    study: Study
    name: str
    scale: str
    runs: str
    command: str
    config: str
    findings: Sequence[tuple[Claim, Finding]]
    figures: Sequence[Drawn]
    remark: str


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole page."""
    parts = [_summary(sections), *map(_section, sections)]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n{''.join(parts)}</body></html>\n"
    )


def _summary(sections: Sequence[Section]) -> str:
    rows = []
    for one in sections:
        title = f'<a href="#{one.name}">{escape(one.study.title)}</a> ({escape(one.scale)})'
        rows.append(f'<tr><th colspan="2">{title}</th></tr>')
        for claim, finding in one.findings:
            rows.append(f"<tr><td>{escape(claim.text)}</td><td>{_badge(finding.outcome)}</td></tr>")
    return (
        f'<p class="soft">{INTERVALS} A verdict is computed from the runs\' tables by the rule that is written beside '
        "it.</p>\n"
        f'<div class="wide"><table class="verdicts">{"".join(rows)}</table></div>\n'
    )


def _section(one: Section) -> str:
    claims = "".join(
        f'<div class="claim {SIGNS[finding.outcome][1]}">{_badge(finding.outcome)}<p>{escape(claim.text)}</p>'
        f"<p><b>Measured:</b> {escape(finding.measured)}</p>"
        f'<p class="soft"><b>Rule:</b> {escape(claim.rule)}</p></div>\n'
        for claim, finding in one.findings
    )
    remark = f"<p>{escape(one.remark)}</p>\n" if one.remark else ""
    return (
        f'<section id="{one.name}"><h2>{escape(one.study.title)}</h2>\n<p class="paper">{escape(one.study.paper)}; '
        f"scale: {escape(one.scale)}, {escape(one.runs)}</p>\n<p>{escape(one.study.setting)}</p>\n"
        f"{''.join(map(_figure, one.figures))}{remark}{claims}"
        f"<details><summary>command and config</summary><pre>{escape(one.command)}</pre>"
        f"<pre>{escape(one.config)}</pre></details></section>\n"
    )


def _figure(drawn: Drawn) -> str:
    light, dark = (f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in (drawn.light, drawn.dark))
    caption = escape(drawn.plot.caption)
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}"><img src="{light}" '
        f'alt="{caption}"></picture><figcaption>{caption}</figcaption></figure>\n'
    )


def _badge(outcome: Outcome) -> str:
    sign, kind = SIGNS[outcome]
    return f'<span class="verdict {kind}">{sign} {outcome}</span>'


def markdown(title: str, sections: Sequence[Section], figures: str) -> str:
    """The same for a repository's reader: the verdicts in one table, then for each experiment its command, its figures
    (PNG files in the folder `figures`, as seen from the text) and claim, measurement and verdict side by side."""
    summary = _table(
        ("experiment", "claim", "verdict"),
        [
            (
                f"[{one.name}](#{one.name}) ({one.scale})" if number == 0 else "",
                claim.text,
                f"{SIGNS[finding.outcome][0]} {finding.outcome}",
            )
            for one in sections
            for number, (claim, finding) in enumerate(one.findings)
        ],
    )
    intro = f"{INTERVALS} Each verdict is computed by the rule beside it."
    return "\n".join([f"# {title}\n", f"{intro}\n", summary, *(_chapter(one, figures) for one in sections)])


def _chapter(one: Section, figures: str) -> str:
    findings = _table(
        ("claim", "rule", "measured", "verdict"),
        [(claim.text, claim.rule, finding.measured, f"**{finding.outcome}**") for claim, finding in one.findings],
    )
    pictures = [
        f"![{one.name}: {d.plot.name}]({figures}/{one.name}-{d.plot.name}.png)\n\n*{d.plot.caption}*\n"
        for d in one.figures
    ]
    remark = [f"{one.remark}\n"] if one.remark else []
    return "\n".join([
        f"## {one.name}\n", f"**{one.study.title}.** {one.study.paper}.\n",
        f"{one.study.setting} Scale: {one.scale}, {one.runs}.\n",
        f"```bash\n{one.command}\n```\n", *pictures, *remark, findings,
    ])  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
