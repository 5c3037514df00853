"""Headless Chromium, where there is one, and what is asked of a page in it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from importlib.resources import files

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first has no window that it could show, and takes half of the time for each."""
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
MISSING = "Chromium is not installed, so the page is not looked at in a browser"
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
_CUT = """() => [...document.querySelectorAll("body *")].filter((one) => {
  const box = one.getBoundingClientRect();
  return box.width > 0 && box.right > innerWidth + 0.5 && !one.closest(".scroll, pre, caption, .skip");
}).map((one) => one.outerHTML.slice(0, 100))"""


class Chromium:
    """One Chromium for all tests of a worker: to start it takes a second, a window of its own in it nothing.

    Playwright runs an event loop on this thread, and leaves it as the running one; here it is so only while a page is
    shown, so that other tests can run loops of their own.
    """

    def __init__(self) -> None:
        from playwright.sync_api import sync_playwright

        self._play = sync_playwright().start()
        self._loop = asyncio.get_running_loop()
        try:
            self._browser = self._play.chromium.launch(
                executable_path=BROWSER, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
        finally:
            asyncio._set_running_loop(None)

    @contextlib.contextmanager
    def shown(self, **settings):
        """A page of it. `wrong` has what it complains about, and `asked` the addresses that it loaded."""
        with self._running(), self._browser.new_context(**{"viewport": WIDE, **settings}) as window:
            page = window.new_page()
            page.wrong, page.asked = [], []
            page.on("pageerror", lambda error: page.wrong.append(str(error)))
            page.on("console", lambda line: page.wrong.append(line.text) if line.type == "error" else None)
            page.on("request", lambda request: page.asked.append(request.url))
            yield page

    def end(self) -> None:
        with self._running():
            self._browser.close()
            self._play.stop()

    @contextlib.contextmanager
    def _running(self):
        asyncio._set_running_loop(self._loop)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)


def cut(page):
    """Return what stands out of the window at the right, beside what scrolls by itself."""
    return page.evaluate(_CUT)


def faults(page):
    """Return what axe-core finds wrong with a page for people who hear, zoom or type."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found]
