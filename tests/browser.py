"""A headless browser on the editing page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from densegen.editor.page import EditorPage
from densegen.editor.sample_faces import SampleFaces
from densegen.editor.server import open_page
from densegen.editor.session import EditSession

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
SMALL = (1000, 600)
"""Without a graphics card the time of a picture goes with its pixels."""


def find_browser() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Wait for ``condition``; what happened is asserted, not how long it took."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.05)
    return value


class Visit:
    """A person at the page: sees pictures, clicks on places of the scene and on buttons."""

    def __init__(self, tab: Any, page: EditorPage, server: Any) -> None:
        self.tab, self.page, self.server = tab, page, server

    @property
    def camera(self) -> Any:
        return next(iter(self.server.get_clients().values())).camera

    def on_screen(self, point: np.ndarray) -> tuple[float, float]:
        """Pixels of the window at which a point of the scene is seen."""
        camera = self.camera
        forward = np.array(camera.look_at) - camera.position
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 1, 0])
        right /= np.linalg.norm(right)
        offset = np.asarray(point) - camera.position
        height = np.tan(camera.fov / 2) * (offset @ forward)
        x = (offset @ right) / (height * camera.aspect)
        y = (offset @ np.cross(right, forward)) / height
        return (float(x) + 1) / 2 * camera.image_width, (1 - float(y)) / 2 * camera.image_height

    def click_at(self, point: np.ndarray) -> None:
        self.tab.mouse.click(*self.on_screen(point))

    def drag(self, start: np.ndarray, end: np.ndarray) -> None:
        """Press on one point of the scene, let go on another."""
        self.tab.mouse.move(*self.on_screen(start))
        self.tab.mouse.down()
        self.tab.mouse.move(*self.on_screen((np.asarray(start) + end) / 2), steps=5)
        self.tab.mouse.move(*self.on_screen(end), steps=5)
        self.tab.wait_for_timeout(300)
        self.tab.mouse.up()

    def press(self, name: str) -> None:
        self.tab.get_by_role("button", name=name, exact=True).click()

    def unfold(self, folder: str) -> None:
        self.tab.get_by_text(folder, exact=True).last.click()

    def write(self, number: int, text: str) -> None:
        """Write into the text box of that number, from the top."""
        self.tab.get_by_role("textbox").nth(number).fill(text)

    def picture(self, path: Any) -> None:
        self.tab.wait_for_timeout(3000)
        self.tab.screenshot(path=str(path))


@contextmanager
def visit(session: EditSession, port: int, size: tuple[int, int] = SMALL, fits: Path | None = None) -> Iterator[Visit]:
    """Serve the page on the loopback and open it in a headless browser."""
    from playwright.sync_api import sync_playwright

    std = np.concatenate([session.model.shape_std, session.model.expression_std])
    page = open_page(session, "127.0.0.1", port, SampleFaces(session.model, std, fits))
    server = page.server
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
            tab = browser.new_page(viewport={"width": size[0], "height": size[1]})
            tab.goto(f"http://127.0.0.1:{port}")
            clients = until(server.get_clients, "the browser to connect")
            until(lambda: next(iter(clients.values())).camera.image_width > 0, "the scene")
            tab.wait_for_timeout(4000)  # the meshes travel after the page
            # A note, here about rendering without a graphics card, covers a corner of the scene.
            for close in tab.locator(".mantine-Notification-closeButton").all():
                close.click()
            yield Visit(tab, page, server)
            browser.close()
    finally:
        server.stop()
