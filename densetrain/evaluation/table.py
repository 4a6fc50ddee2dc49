"""Tables of a report, as Markdown and as HTML."""

from __future__ import annotations

import html
from dataclasses import dataclass

from densegen.console import as_markdown, one_line

__all__ = ["Table", "as_html_text"]


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; ``note`` says how the numbers were made.

    lower : columns whose smallest number is marked as the best
    """

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lower: tuple[int, ...] = ()

    @property
    def best(self) -> set[tuple[int, int]]:
        """Rows and columns of the best values, if there are several to choose from."""
        found: set[tuple[int, int]] = set()
        for column in self.lower:
            values = {n: float(row[column]) for n, row in enumerate(self.rows) if _is_number(row[column])}
            if len(values) > 1:
                found |= {(n, column) for n, value in values.items() if value == min(values.values())}
        return found

    def as_markdown(self) -> str:
        lines = [
            f"## {as_markdown(self.title)}",
            "",
            as_markdown(self.note),
            "",
            f"| {' | '.join(map(as_markdown, self.header))} |",
            "|---" * len(self.header) + "|",
        ]
        best = self.best
        rows = [
            [
                f"**{as_markdown(cell)}**" if (n, column) in best else as_markdown(cell)
                for column, cell in enumerate(row)
            ]
            for n, row in enumerate(self.rows)
        ]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])

    def as_html(self) -> str:
        best = self.best

        def cell(text: str, row: int, column: int) -> str:
            kind = ' class="n"' if _is_number(text) else ""
            shown = f"<b>{as_html_text(text)}</b>" if (row, column) in best else as_html_text(text)
            return f"<td{kind}>{shown}</td>"

        head = "".join(f"<th>{as_html_text(name)}</th>" for name in self.header)
        body = "\n".join(
            f"<tr>{''.join(cell(text, n, column) for column, text in enumerate(row))}</tr>"
            for n, row in enumerate(self.rows)
        )
        title, note = as_html_text(self.title), as_html_text(self.note)
        return f"<h2>{title}</h2>\n<p>{note}</p>\n<table>\n<tr>{head}</tr>\n{body}\n</table>"


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def as_html_text(text: str) -> str:
    """A stranger's text for an HTML page: one line in which nothing is a tag."""
    return html.escape(one_line(text))
