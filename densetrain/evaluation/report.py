"""One page from several evaluations: tables beside the published rows, CED curves; Markdown, HTML and pictures."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from densegen.console import as_markdown
from densegen.drawing import as_label, save_figure
from densegen.errors import ConfigurationError
from densegen.files import replace_into, write_bytes, write_text
from densetrain.evaluation.evaluate import Result
from densetrain.evaluation.metrics import BALANCED_DRAWS, BINS, cumulative_errors
from densetrain.evaluation.protocol import Protocol
from densetrain.evaluation.published import AFLW2000_ROWS, AFLW_ROWS, BACKBONE_ROWS
from densetrain.evaluation.table import Table, as_html_text
from densetrain.evaluation.training_log import TrainingLog, differing_settings, draw_curves

if TYPE_CHECKING:
    from densetrain.network.profile import Profile

__all__ = ["draw_ced", "profile_table", "result_lines", "result_table", "tell_apart", "with_weights", "write_report"]


WIDEST_AXIS = 1e6
"""Percent; no picture of errors is wider."""


def result_lines(results: Sequence[Result]) -> list[str]:
    """What ``densetrain evaluate`` prints of evaluations by one protocol: the protocol, then a column an evaluation."""
    first = results[0]
    columns = [_figures(result) for result in results]
    names = dict.fromkeys(name for column in columns for name in column)
    return [
        f"protocol: {first.protocol}",
        f"balanced subsets: {first.score.balanced_size:,} faces of each bin, {BALANCED_DRAWS} draws, seed "
        f"{first.score.seed}",
        *(f"{result.method}: made from {result.made}" for result in results),
        "",
        *_aligned([("percent", *(result.method for result in results))]
                  + [(name, *(column.get(name, "") for column in columns)) for name in names]),
    ]  # fmt: skip


def _figures(result: Result) -> dict[str, str]:
    """Every number of an evaluation by its name, as it is printed."""
    s = result.score
    bins = {
        f"NME, yaw {name}, {count:,} faces": "-" if np.isnan(value) else f"{value:.4f}"
        for name, value, count in zip(BINS, s.bins, s.counts, strict=True)
    }
    return {
        **bins,
        "NME, mean of the bins": f"{s.mean:.4f}",
        "NME, std of the bins": f"{s.std:.4f}",
        "NME, all images": f"{s.all_images:.4f}",
        "NME, balanced subsets": f"{s.balanced:.4f} +- {s.balanced_std:.4f}",
        f"AUC at {s.threshold:g} %": f"{s.auc:.2f}",
        f"failures above {s.threshold:g} %": f"{s.failures:.2f}",
        **{f"NME, {title}: {name}": f"{value:.3f}" for title, values in result.groups.items()
           for name, value in values.items()},
    }  # fmt: skip


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"{row[0]:{widths[0]}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]


def result_table(results: Sequence[Result]) -> Table:
    """Evaluations of one protocol in the layout of the published tables, with the published rows above."""
    protocol = results[0].protocol
    published = _published(protocol)
    rows = [(f"{name} (published)", *(_number(v, 2) for v in values), "", "") for name, *values in published]
    for result in results:
        s = result.score
        numbers = (*(_number(v, 3) for v in s.bins), _number(s.mean, 3), _number(s.all_images, 3))
        rows.append((result.method, *numbers, result.made))
    return Table(
        title=f"NME, {protocol.title}",
        note=f"Protocol: {protocol}."
        + (" Published rows as printed: all images, each method's own crops." if published else ""),
        header=("method", *BINS, "mean of bins", "all images", "made from"),
        rows=tuple(rows),
        lower=tuple(range(1, 1 + len(BINS) + 2)),
    )


def _published(protocol: Protocol) -> tuple[tuple[str, float | None, float | None, float | None, float], ...]:
    """The rows that stand for the same faces, points and labels, compared alike: none beside relabelled faces, some of
    the faces, bins by other yaws (those of the fits are the public ones), or surfaces.
    """
    apart = protocol.dimensions != "2D" or protocol.alignment is not None or protocol.yaw not in (None, "pose", "fit")
    some = protocol.is_part or not protocol.points.startswith(("68 ", "21 "))
    if protocol.comparison == "label files" or some or apart:
        return ()
    if protocol.benchmark == "AFLW2000-3D" and protocol.labels == "original":
        return AFLW2000_ROWS
    return AFLW_ROWS if protocol.benchmark == "AFLW" and protocol.comparison == "public script" else ()


def profile_table(profiles: Sequence[Profile]) -> Table:
    """What backbones cost, beside the published figures."""
    known = {name: (macs, parameters) for name, macs, parameters in BACKBONE_ROWS}
    rows = []
    for p in profiles:
        as_published = p.input_size == 256 and p.width == 1 and p.landmarks == 520
        macs, parameters = known.get(p.backbone, (None, None)) if as_published else (None, None)
        one, every = (f"{ms:.1f}" for ms in p.latency_ms) if p.latency_ms is not None else ("", "")
        rows.append(
            (p.backbone, f"{p.width:g}", str(p.landmarks), str(p.input_size),
             f"{p.parameters / 1e6:.3f}", f"{p.macs / 1e9:.3f}", one, every,
             _number(parameters, 3), _number(macs, 3))
        )  # fmt: skip
    return Table(
        title="Backbones",
        note="Batch 1. MACs of convolutions and matrix products; latency is the median on this machine's CPU.",
        header=("backbone", "width", "landmarks", "input, px", "parameters, M", "GMACs", "1 thread, ms",
                "all threads, ms", "published M", "published GMACs"),
        rows=tuple(rows),
    )  # fmt: skip


def draw_ced(results: Sequence[Result], path: Path) -> None:
    """Write the cumulative error distributions of several evaluations as one picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    threshold = max(result.score.threshold for result in results)
    # If no method has half of its faces below the threshold, the picture would be nearly empty: show more of the axis.
    medians = [float(np.median(result.errors)) for result in results]
    end = threshold if min(medians) <= threshold else min(1.5 * max(medians), WIDEST_AXIS)
    differ = any(result.score.threshold != threshold for result in results)
    for result in results:
        x, y = cumulative_errors(np.array(result.errors), end)
        to = f" to {result.score.threshold:g} %" if differ else ""
        axes.plot(x, y, label=f"{as_label(result.method)}: AUC{to} {result.score.auc:.1f} %")
    if end > threshold:
        axes.axvline(threshold, color="grey", linestyle=":", label=f"AUC ends at {threshold:g} %")
    axes.set(xlim=(0, end), ylim=(0, 100), xlabel="NME, %", ylabel="faces, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    axes.set_title(as_label(results[0].protocol.title), fontsize=8)
    save_figure(figure, path)


def tell_apart(results: Sequence[tuple[str, Result]]) -> list[Result]:
    """Results from several places, each once; if two methods have one name, their place is added to it, and in one
    place their weights.
    """
    kept: dict[tuple[object, ...], tuple[str, Result]] = {}
    for place, result in results:  # a flip test repeats the constant prediction
        kept.setdefault((place, *result.identity, *result.errors), (place, result))
    results = list(kept.values())
    named: dict[tuple[Protocol, str], dict[str, set[str | None]]] = {}
    for place, result in results:
        named.setdefault((result.protocol, result.method), {}).setdefault(place, set()).add(result.weights)
    apart = []
    for place, result in results:
        places = named[result.protocol, result.method]
        method = with_weights(result, len(places[place]) > 1) + (f" in {place}" if len(places) > 1 else "")
        apart.append(result.model_copy(update={"method": method}))
    return _with_settings(apart)


def _with_settings(results: Sequence[Result]) -> list[Result]:
    """Results of one name and protocol get what they were scored with into their names, if that is what differs."""
    scored: dict[tuple[Protocol, str], set[tuple[float, int]]] = {}
    for result in results:
        scored.setdefault((result.protocol, result.method), set()).add((result.score.threshold, result.score.seed))
    named = []
    for result in results:
        thresholds, seeds = map(set, zip(*scored[result.protocol, result.method], strict=True))
        more = f", to {result.score.threshold:g} %" if len(thresholds) > 1 else ""
        more += f", seed {result.score.seed}" if len(seeds) > 1 else ""
        named.append(result.model_copy(update={"method": result.method + more}))
    return named


def with_weights(result: Result, several: bool) -> str:
    """A method's name, with its weights if there are several of that name."""
    return f"{result.method}, weights {result.weights}" if several and result.weights else result.method


def write_report(
    results: Sequence[Result],
    profiles: Sequence[Profile],
    out: Path,
    sheets: Mapping[Path, Result] | None = None,
    logs: Sequence[TrainingLog] = (),
) -> None:
    """Write ``report.md``, ``report.html`` and their pictures to the folder ``out``, all of them or none: for each
    protocol a table, CED curves and worst cases; training curves; the settings that differ between the runs.

    sheets : pictures of the worst cases, which are copied, and the result that each belongs to
    logs : of the runs

    Raises :class:`ConfigurationError` if there is nothing to report.
    """
    if not results and not profiles:
        raise ConfigurationError("nothing to report: run 'densetrain evaluate' first")
    with replace_into(out) as staging:
        _write_report(results, profiles, staging, sheets or {}, logs)
        for path in out.glob("*.png") if (out / "report.html").exists() else ():
            if _PICTURE.fullmatch(path.name) and not (staging / path.name).exists():
                path.unlink()


_PICTURE = re.compile(r"(ced|worst)-[0-9]+\.png")
"""What a report before this one may have had more of."""


def _write_report(
    results: Sequence[Result],
    profiles: Sequence[Profile],
    out: Path,
    sheets: Mapping[Path, Result],
    logs: Sequence[TrainingLog],
) -> None:
    markdown, page = ["# Evaluation"], ["<h1>Evaluation</h1>"]

    def show(title: str, name: str) -> None:
        markdown.append(f"![{as_markdown(title)}]({name})")
        page.append(f'<p><img src="{html.escape(name)}" alt="{as_html_text(title)}"></p>')

    copied = 0
    for number, protocol in enumerate(dict.fromkeys(result.protocol for result in results)):
        same = [result for result in results if result.protocol == protocol]
        picture = out / f"ced-{number}.png"
        draw_ced(same, picture)
        table = result_table(same)
        markdown.append(table.as_markdown())
        page.append(table.as_html())
        show("CED", picture.name)
        for sheet, result in sheets.items():
            if result.protocol == protocol:
                title, name = f"Worst cases of {result.method}", f"worst-{copied}.png"
                write_bytes(out / name, sheet.read_bytes())
                markdown.append(f"### {as_markdown(title)}")
                page.append(f"<h3>{as_html_text(title)}</h3>")
                show(title, name)
                copied += 1
        for further in _group_tables(same):
            markdown.append(further.as_markdown())
            page.append(further.as_html())
    if profiles:
        table = profile_table(profiles)
        markdown.append(table.as_markdown())
        page.append(table.as_html())
    if logs:
        draw_curves(logs, out / "training.png")
        markdown.append("## Training")
        page.append("<h2>Training</h2>")
        show("training curves", "training.png")
        table = _settings_table(logs)
        markdown.append(table.as_markdown())
        page.append(table.as_html())
    write_text(out / "report.md", "\n\n".join(markdown) + "\n")
    style = (
        "body{font:15px sans-serif;margin:2em auto;padding:0 1em;max-width:75em}table{border-collapse:collapse}"
        "td,th{padding:.25em .8em;text-align:left;border-bottom:1px solid #ddd}td.n{text-align:right}"
        "tr:hover{background:#f4f6f8}img{max-width:100%}"
    )
    head = f'<!doctype html>\n<meta charset="utf-8"><title>Evaluation</title><style>{style}</style>\n'
    write_text(out / "report.html", head + "\n".join(page) + "\n")


def _settings_table(logs: Sequence[TrainingLog]) -> Table:
    alone = len(logs) == 1
    return Table(
        title="Settings",
        note="Those that are not the default." if alone else "Those that differ between the runs.",
        header=("setting", *(log.name for log in logs), *(["default"] if alone else [])),
        rows=tuple(differing_settings(logs)),
    )


def _group_tables(results: Sequence[Result]) -> list[Table]:
    tables = []
    for title in dict.fromkeys(title for result in results for title in result.groups):
        having = [result for result in results if title in result.groups]
        names = tuple(dict.fromkeys(name for result in having for name in result.groups[title]))
        rows = tuple(
            (result.method, *(_number(result.groups[title].get(name), 3) for name in names)) for result in having
        )
        tables.append(
            Table(
                f"NME by {title}",
                "Percent; the same protocol.",
                ("method", *names),
                rows,
                tuple(range(1, len(names) + 1)),
            )
        )
    return tables


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.{digits}f}"
