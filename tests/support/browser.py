"""Headless Chromium, where there is one, and what is asked of a page in it."""

from __future__ import annotations

import contextlib
import shutil
from importlib.resources import files

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "Chromium is not installed, so the page is not looked at in a browser"
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
_CUT = """() => [...document.querySelectorAll("body *")].filter((one) => {
  const box = one.getBoundingClientRect();
  return box.width > 0 && box.right > innerWidth + 0.5 && !one.closest(".scroll, pre, caption, .skip");
}).map((one) => one.outerHTML.slice(0, 100))"""


@contextlib.contextmanager
def shown(**settings):
    """A page of Chromium. `wrong` has what it complains about, and `asked` the addresses that it loaded."""
    if BROWSER is None:
        pytest.skip(MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page(**{"viewport": WIDE, **settings})
        page.wrong, page.asked = [], []
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("console", lambda line: page.wrong.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request: page.asked.append(request.url))
        yield page
        browser.close()


def cut(page):
    """Return what stands out of the window at the right, beside what scrolls by itself."""
    return page.evaluate(_CUT)


def faults(page):
    """Return what axe-core finds wrong with a page for people who hear, zoom or type."""
    page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document)")["violations"]
    return [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found]
