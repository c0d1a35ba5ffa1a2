"""A real browser opens the report: no error, every chart drawn, every picture shown."""

import os
import shutil
from pathlib import Path

import pytest

from serving.report.page import write_report

playwright = pytest.importorskip("playwright.sync_api")

# Of Debian's package chromium, or named by the environment; else the one that playwright installs.
BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium")

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.filterwarnings("default")]


def test_the_report_is_drawn_whole_and_without_an_error(run: str, tmp_path: Path) -> None:
    path = Path(write_report(run)).resolve()
    problems: list[str] = []
    with playwright.sync_playwright() as p:
        try:
            browser = p.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser (apt-get install chromium): {str(error).splitlines()[0]}")
        page = browser.new_page(viewport={"width": 1100, "height": 900}, offline=True)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(request.url[:80]))
        page.goto(path.as_uri(), wait_until="load")
        images = page.evaluate(
            "Array.from(document.images, i => [i.className, i.complete && i.naturalWidth > 20])"
        )
        wide = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        page.screenshot(path=tmp_path / "report.png", full_page=True)
        browser.close()
    assert problems == []
    assert {kind for kind, _ in images} == {"chart", "picture"}
    assert all(is_shown for _, is_shown in images), images
    assert not wide
    assert (tmp_path / "report.png").stat().st_size > 20_000
