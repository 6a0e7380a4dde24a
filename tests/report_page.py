"""A report in Chromium; modules that import this one are skipped where selenium or Chromium is missing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed; nox -s browser runs the tests of pages")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)

from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402


class Page:
    """A report in a browser."""

    def __init__(self, driver, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads

    def open(self, path: Path) -> Page:
        self.driver.get(path.resolve().as_uri())
        WebDriverWait(self.driver, 30).until(lambda d: d.execute_script("return document.body.dataset.ready"))
        return self

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.find(selector).text

    def press(self, *keys):
        chain = ActionChains(self.driver)
        for key in keys:
            chain.send_keys(key)
        chain.perform()

    def labels(self):
        return [card.get_attribute("data-label") for card in self.all(".card")]

    def select(self, name, value):
        Select(self.find(f"#{name}")).select_by_value(value)
        self.find(f"#{name}").send_keys(Keys.ESCAPE)

    def threshold(self, value):
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
        self.driver.execute_script(script, self.find("#threshold"), value)

    def save(self, suffix):
        """Click a button of the menu "Save"; return the file that is downloaded."""
        before = set(self.downloads.iterdir())
        if self.find("#save").get_attribute("open") is None:
            self.find("#save summary").click()
        self.find(f"#save-{suffix}").click()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            new = [path for path in set(self.downloads.iterdir()) - before if path.suffix != ".crdownload"]
            if new and new[0].stat().st_size:
                return new[0]
            time.sleep(0.05)
        raise AssertionError(f"nothing was downloaded: {self.text('#message')}")


def chromium() -> Iterator[webdriver.Chrome]:
    """Yield the driver of a browser without a window, which is closed afterwards."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1300,950", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield started
    started.quit()


def clean_page(driver: webdriver.Chrome, downloads: Path) -> Iterator[Page]:
    """Yield a page without what earlier tests stored; its console must stay empty."""
    downloads.mkdir()
    behaviour = {"behavior": "allow", "downloadPath": str(downloads)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    driver.get_log("browser")
    driver.get_log("performance")
    yield Page(driver, downloads)
    driver.execute_script("localStorage.clear()")
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
