"""Check the built documentation: links between pages, and with `--browser`, every page in Chromium.

    python docs/check_site.py docs/_build/html [--browser FOLDER]

Nothing may be loaded from a network. `--browser` needs selenium, Chromium and its driver; it fails if a page
writes to the console, and saves a picture of each page in FOLDER.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes that load something while a page is shown.
LOADING = {("script", "src"), ("img", "src"), ("link", "href"), ("source", "src"), ("iframe", "src")}
# Kinds of <link> that load nothing.
HARMLESS = {"canonical", "index", "search", "next", "prev", "author"}


class Page(HTMLParser):
    """The anchors of a page, and what it links to and loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[tuple[str, bool]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Collect the anchors and links of a tag."""
        values = dict(attributes)
        for name in ("id", "name"):
            if values.get(name):
                self.anchors.add(str(values[name]))
        for name in ("href", "src"):
            target = values.get(name)
            if target:
                loads = (tag, name) in LOADING and values.get("rel") not in HARMLESS
                self.links.append((target, loads))


def broken_links(site: Path) -> list[str]:
    """Return a line for each link that leads nowhere, and for each file that is loaded from elsewhere."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    if not pages:
        return [f"{site} has no pages"]
    found = []
    for path, page in pages.items():
        shown = path.relative_to(site.resolve())
        for target, loads in page.links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if loads and parts.scheme != "data":
                    found.append(f"{shown}: loads {target}")
                continue
            other = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not other.exists():
                found.append(f"{shown}: {target} does not exist")
            elif parts.fragment and other in pages and unquote(parts.fragment) not in pages[other].anchors:
                found.append(f"{shown}: {target} has no such anchor")
    return found


def console_errors(site: Path, pages: str, pictures: Path) -> list[str]:
    """Open the pages of a pattern in Chromium; return what each wrote to the console."""
    from selenium import webdriver

    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or chromium is None:
        return ["chromium and chromedriver are not on the PATH"]

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1300,1600", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Named, because selenium would look for them on the network.
    options.binary_location = chromium
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    found = []
    pictures.mkdir(parents=True, exist_ok=True)
    try:
        for path in sorted(site.rglob(pages)):
            browser.get(path.resolve().as_uri())
            shown = path.relative_to(site)
            found += [f"{shown}: {entry['message']}" for entry in browser.get_log("browser")]
            browser.save_screenshot(str(pictures / f"{'-'.join(shown.with_suffix('').parts)}.png"))
    finally:
        browser.quit()
    return found


def main() -> int:
    """Check a site, print the faults, and return whether there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path)
    parser.add_argument("--browser", type=Path, metavar="FOLDER")
    parser.add_argument("--pages", default="*.html", help="pattern of the pages to open")
    arguments = parser.parse_args()
    faults = broken_links(arguments.site)
    if arguments.browser is not None:
        faults += console_errors(arguments.site, arguments.pages, arguments.browser)
    print(*faults, f"{len(faults)} faults", sep="\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
