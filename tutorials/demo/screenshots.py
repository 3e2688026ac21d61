"""Takes the screenshots of this folder: `python screenshots.py` in a checkout with the extra `test` and Chromium."""

from pathlib import Path

from playwright.sync_api import sync_playwright

from captum_sgcampp.demo.networks import Networks
from captum_sgcampp.demo.serve import serve

FOLDER = Path(__file__).parent
# Two classes compared, and some neurons chosen.
SETTINGS = (
    "?scene=0&target=3&compared=0&nt_samples=16&methods=grad-cam,grad-cam%2B%2B,smooth-grad-cam%2B%2B&neurons=2:15,3:15"
)


def take_all(address: str) -> None:
    """Both widths, light and dark."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for width in (400, 1400):
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                page.goto(address + SETTINGS)
                page.locator("#status", has_text="noisy samples.").wait_for(timeout=90_000)
                page.wait_for_timeout(1000)
                page.screenshot(path=FOLDER / f"page-{width}-{scheme}.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    served = serve(Networks())
    take_all(served.local_url)
    served.close()
