"""What the page says: pieces of HTML, in which nothing that stands in a file is a tag."""

from __future__ import annotations

import shlex
from collections import Counter
from html import escape

from densegen.drawing import REGION_COLOURS
from densegen.editor.session import BY_HAND, EditSession
from densegen.face.regions import REGIONS
from densegen.index.corrections import Corrections

__all__ = [
    "ADD",
    "KEYS",
    "LOOK",
    "MODES",
    "MOVE",
    "about",
    "done",
    "failed",
    "heat_scale",
    "history",
    "history_list",
    "legend",
    "mode",
    "saved",
]

LOOK, MOVE, ADD = MODES = ("Look", "Move", "Add")

_HINTS = {
    LOOK: "click a landmark to select it, drag one to move it",
    MOVE: "click where the selected landmark shall go; once, then Look again",
    ADD: "click the face or the plane; Escape ends adding",
}
_MODE_COLOURS = {LOOK: "#4a5568", MOVE: "#b7560a", ADD: "#1d6fb8"}

_BOX = "padding:4px 12px;font-size:13px;line-height:1.45"

KEYS = f"""<div style="{_BOX}"><b>1</b> or <b>Esc</b> look · <b>2</b> move · <b>3</b> add<br>
<b>Ctrl+Z</b> undo · <b>Ctrl+Y</b> redo · <b>Del</b> delete · <b>Ctrl+S</b> save<br>
<b>arrows</b> move the selected landmark by a vertex of the UV plane<br>
<b>G</b> next largest gap<br>drag a landmark: it follows along the surface</div>"""


def about(session: EditSession, count: int, coverage_mm: tuple[float, float, float], selected: list[str]) -> str:
    """The head of the panel: the index, how well it covers the face, what is selected."""
    largest, percentile, mean = coverage_mm
    state = "saved" if session.is_saved else "<b style='color:#b7560a'>not saved</b>"
    before = len(session.base)
    changed = "" if count == before else f" (it was {before})"
    lines = [
        f"<b>{escape(session.base.name)}</b> from {escape(session.base.version)}: {count} landmarks{changed}, {state}",
        f"farthest place from a landmark {largest:.1f} mm; 99 % within {percentile:.1f} mm; mean {mean:.2f} mm",
    ]
    shown = "<br>".join(map(escape, selected)) if selected else "nothing is selected"
    return f'<div style="{_BOX}">{"<br>".join(lines)}<hr style="margin:5px 0">{shown}</div>'


def mode(name: str) -> str:
    """The mode, to be seen at all times."""
    colour = _MODE_COLOURS[name]
    return (
        f'<div style="{_BOX}"><div style="background:{colour};color:white;border-radius:4px;padding:3px 8px">'
        f"<b>{name}</b>: {_HINTS[name]}</div></div>"
    )


def done(text: str, *, ask: bool = False) -> str:
    """What was done, and the question for its reason."""
    asked = " <b>Why? Write it below.</b>" if ask else ""
    return f'<div style="{_BOX};color:#1a6b3c">{escape(text)}{asked}</div>' if text else ""


def failed(text: str) -> str:
    """What could not be done."""
    return f'<div style="{_BOX};color:#b00020"><b>Not done:</b> {escape(text)}</div>'


def saved(session: EditSession, corrections: Corrections) -> str:
    """What was written, and what to do next."""
    reasons = [entry.reason for entries in (corrections.add, corrections.remove, corrections.move) for entry in entries]
    unexplained = reasons.count(BY_HAND)
    file = shlex.quote(str(session.path))
    why = f" {unexplained} of them say no reason but '{BY_HAND}'." if unexplained else ""
    return (
        f"Saved {session.path}: {len(corrections.add)} pairs added, {len(corrections.remove)} removed, "
        f"{len(corrections.move)} moved; {corrections.count} landmarks, version {corrections.index_version}.{why} "
        f"Next: densegen index correct INDEX.yaml {file} NEW.yaml --model MODEL, INDEX.yaml being "
        f"{session.base.name} {session.base.version}"
    )


def history(session: EditSession) -> list[str]:
    """The start and each edit in a line, numbered, so that no two are the same."""
    return ["0 start", *(f"{n} {edit.verb} {edit.name}" for n, edit in enumerate(session.edits, start=1))]


def history_list(entries: list[str], position: int) -> str:
    """The edits, the last one first; those that were undone are struck out."""

    def line(number: int, text: str) -> str:
        if number > position:
            return f"<s>{escape(text)}</s>"
        return f"<b>{escape(text)}</b>" if number == position else escape(text)

    lines = [line(number, text) for number, text in enumerate(entries)][::-1]
    return f'<div style="{_BOX};max-height:180px;overflow-y:auto">{"<br>".join(lines)}</div>'


def legend(regions: list[str]) -> str:
    """Colours and counts of the regions."""
    count = Counter(regions)
    dot = "display:inline-block;width:10px;height:10px;border-radius:5px"
    rows = [
        f'<span style="{dot};background:{REGION_COLOURS[name]}"></span> {name} {count[name]}'
        for name in REGIONS
        if count[name]
    ]
    return f'<div style="{_BOX};columns:2">{"<br>".join(rows)}</div>'


def heat_scale(largest_mm: float) -> str:
    """The colours of the heat, with millimetres."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    colours = ",".join(to_hex(colormaps["inferno"](share / 10)) for share in range(11))
    marks = "".join(f"<span>{largest_mm * share / 4:g}</span>" for share in range(5))
    return (
        f'<div style="{_BOX}"><div style="height:10px;background:linear-gradient(to right,{colours})"></div>'
        f'<div style="display:flex;justify-content:space-between">{marks}</div>mm to the nearest landmark</div>'
    )
