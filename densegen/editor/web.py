"""What the page has beside viser's own: a title, an icon, and names under the pointer.

viser tells the server of clicks and drags, not of a resting pointer. So the page asks ``/under?x=..&y=..`` where the
pointer is, and shows the answer beside it.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["ANSWER_PATH", "answer", "with_own_head"]

ANSWER_PATH = "/under"

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cellipse cx='8' cy='8' rx='6' ry='7.4' fill='%23d8c8b8'/%3E"
    "%3Cg fill='%231f5eea'%3E%3Ccircle cx='5.5' cy='6.5' r='1.2'/%3E%3Ccircle cx='10.5' cy='6.5' r='1.2'/%3E"
    "%3Ccircle cx='8' cy='9.2' r='1'/%3E%3Ccircle cx='6' cy='12' r='1'/%3E%3Ccircle cx='10' cy='12' r='1'/%3E"
    "%3C/g%3E%3C/svg%3E"
)

_SCRIPT = """
(() => {
  const tip = Object.assign(document.createElement("div"), {id: "under"});
  tip.style.cssText = "position:fixed;z-index:9999;padding:2px 7px;border-radius:4px;background:#222;color:#fff;" +
    "font:13px sans-serif;pointer-events:none;display:none";
  let timer = 0, at = null;
  const hide = () => { clearTimeout(timer); at = null; tip.style.display = "none"; };
  const ask = async (event) => {
    const box = event.target.getBoundingClientRect(), x = event.clientX, y = event.clientY;
    const place = `x=${(x - box.left) / box.width}&y=${(y - box.top) / box.height}`;
    const text = await (await fetch(`/under?${place}`)).text();
    if (at !== event || !text) return;  // the pointer has gone on
    tip.textContent = text;
    tip.style.display = "block";
    tip.style.left = `${x + 14}px`;
    tip.style.top = `${y + 10}px`;
  };
  addEventListener("pointermove", (event) => {
    hide();
    if (event.target.tagName !== "CANVAS" || event.buttons) return;
    at = event;
    timer = setTimeout(() => ask(event).catch(() => {}), 60);
  });
  addEventListener("pointerdown", hide);
  document.addEventListener("pointerleave", hide);
  addEventListener("DOMContentLoaded", () => {
    document.body.appendChild(tip);
    const title = document.title;
    new MutationObserver(() => { if (document.title !== title) document.title = title; })
      .observe(document.head, {childList: true, subtree: true, characterData: true});
  });
})();
"""


def with_own_head(response: Any, title: str) -> Any:
    """The page's own HTML with our title, icon and script; any other response stays as it is."""
    from websockets.http11 import Response

    if not response.headers.get("Content-Type", "").startswith("text/html"):
        return response
    packed = response.headers.get("Content-Encoding") == "gzip"
    body = (gzip.decompress(response.body) if packed else response.body).decode("utf-8")
    start, end = body.find("<title>"), body.find("</title>")
    if not 0 <= start < end:
        return response
    own = f"<title>{escape(title)}</title><link rel='icon' href=\"{_ICON}\"/><script>{_SCRIPT}</script>"
    body = body.replace('rel="icon"', 'rel="other"', 1)
    start, end = body.find("<title>"), body.find("</title>")
    data = (body[:start] + own + body[end + len("</title>") :]).encode("utf-8")
    headers = response.headers.copy()
    for name in ("Content-Encoding", "Content-Length"):
        if name in headers:
            del headers[name]
    headers["Content-Length"] = str(len(data))
    return Response(response.status_code, response.reason_phrase, headers, data)


def answer(connection: Any, path: str, name_under: Callable[[float, float], str]) -> Any:
    """The answer to ``/under?x=0.3&y=0.5``: what lies there, in shares of the scene's width and height, from its upper
    left corner.
    """
    asked = parse_qs(urlsplit(path).query)
    try:
        x, y = float(asked["x"][0]), float(asked["y"][0])
    except (KeyError, ValueError):
        return connection.respond(400, "x and y are numbers\n")
    return connection.respond(200, name_under(x, y))
