"""How long people wait for the first picture, and after a click on a feature map.

`python timing.py`, in a checkout with the extra `test` and Debian's Chromium. The server has one thread.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from playwright.sync_api import sync_playwright
from visitors import server

VISITS, CLICKS, TILES = 3, 20, 5
# From the click until the maps in the page are others, in milliseconds, by the browser's own clock.
CLICK = """async number => {
  const maps = () => document.querySelector('#maps section').innerHTML;
  const before = maps(), start = performance.now();
  document.querySelectorAll('#tiles button')[number].click();
  while (maps() === before) await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""


def opened(driver: Any, address: str) -> tuple[Any, Any]:
    """A new browser, and a page that shows its first picture. Tells the seconds."""
    start = time.monotonic()
    browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(address)
    page.locator("#maps figure img").first.wait_for()
    print(f"first picture, from the start of the browser: {time.monotonic() - start:.2f} s")
    page.locator("#status", has_text="noisy samples.").wait_for()
    return browser, page


def main() -> None:
    """Print all times."""
    with server() as (address, _), sync_playwright() as driver:
        for visit in range(VISITS):
            browser, page = opened(driver, address)
            if visit == VISITS - 1:
                times = [page.evaluate(CLICK, number % TILES) for number in range(CLICKS)]
                print(f"clicks: median {statistics.median(times):.0f} ms, longest {max(times):.0f} ms")
            browser.close()


if __name__ == "__main__":
    main()
