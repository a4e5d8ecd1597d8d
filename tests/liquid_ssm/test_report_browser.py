"""The page of a report in a real browser, at the width of a phone and of a desk, in light and dark, and on paper."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import liquid_ssm as ls
from liquid_ssm.report import Report, RoundingRow
from liquid_ssm.report_plots import plots

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = [
    name
    for name, found in (
        ("chromium", CHROMIUM),
        ("chromedriver", DRIVER),
        ("selenium", find_spec("selenium")),
        ("matplotlib", find_spec("matplotlib")),
    )
    if found is None
]

pytestmark = pytest.mark.skipif(
    bool(MISSING),
    reason=f"the page needs a browser to be looked at; not installed: {', '.join(MISSING)} "
    "(Debian: apt-get install chromium chromium-driver; pip install 'liquid-ssm[test]')",
)

VIEWS = [(width, scheme) for width in (375, 1280) for scheme in ("light", "dark")]
LEAST_CONTRAST = 4.5  # WCAG 2, level AA


@pytest.fixture(scope="module")
def report() -> Report:
    continuous = ls.initialize("s4d-lin", n_channels=2, n_state=8)
    u = np.random.default_rng(0).normal(size=(1, 2, 200))
    found = ls.verify(continuous, u, ["scipy", "numpy"], modes=["s4", "liquid", "truncated"], curves=True)
    # Long words and every status, too, so that each is looked at.
    odd = [
        RoundingRow(
            "a-backend-with-a-long-name", "liquid", "float32", status, 1e-6, 1e-6, 1e-6, 1.5, reason="long " * 60
        )
        for status in ("fail", "inconclusive")
    ]
    odd.append(RoundingRow("keops", "liquid", "float32", "rejected", reason="primitive: needs scan"))
    command = f"liquid-ssm verify --signal {'a' * 300}.wav"
    return replace(found, rounding=(*found.rounding, *odd), problem={"signal": "x" * 400}, command=command)


@pytest.fixture(scope="module")
def page(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.to_html(path)
    assert path.stat().st_size < 3e6
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("profile")
    # --no-sandbox: containers, where tests run as the superuser, have none.
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
        *("--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}"),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


def show(browser: Any, page: Path, width: int, scheme: str, media: str = "") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    browser.get(page.as_uri())


@pytest.fixture(params=VIEWS, ids=lambda view: f"{view[0]}-{view[1]}")
def shown(request: pytest.FixtureRequest, browser: Any, page: Path) -> Any:
    show(browser, page, *request.param)
    return browser


def test_nothing_is_wrong_and_nothing_is_fetched(shown: Any) -> None:
    messages = shown.get_log("browser")
    print(messages)
    assert [message for message in messages if message["level"] in ("SEVERE", "WARNING")] == []
    assert shown.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_every_plot_is_there_and_has_a_size(shown: Any, report: Report) -> None:
    boxes = shown.execute_script(
        "return [...document.querySelectorAll('svg[role=img]')].map(s => {"
        " const b = s.getBoundingClientRect(); return [b.width, b.height, s.getAttribute('aria-label')]; })"
    )
    expected = plots(report)
    assert len(expected) > 20
    assert [label for _, _, label in boxes] == [f"{plot.title}. {plot.caption}" for plot in expected]
    assert all(width > 250 and height > 150 for width, height, _ in boxes)
    # Nothing is an image that could be missing.
    assert shown.execute_script("return document.images.length") == 0


def test_labels_of_a_plot_stay_within_it(shown: Any) -> None:
    outside = shown.execute_script(
        "return [...document.querySelectorAll('svg[role=img]')].flatMap(s => { const b = s.getBoundingClientRect();"
        " return [...s.querySelectorAll('text')].filter(t => { const r = t.getBoundingClientRect();"
        " return r.left < b.left - 2 || r.right > b.right + 2 || r.top < b.top - 2 || r.bottom > b.bottom + 2; })"
        ".map(t => t.textContent); })"
    )
    assert outside == []


def test_every_table_is_there_with_its_rows(shown: Any, report: Report) -> None:
    rows = shown.execute_script("return [...document.querySelectorAll('table')].map(t => t.tBodies[0].rows.length)")
    by_dtype = [sum(row.dtype == dtype for row in report.rounding) for dtype in ("float32", "float64")]
    assert rows == [
        *by_dtype,
        len(report.truncation),
        len(report.discretization),
        len(report.problem),
        len(report.environment),
    ]


def test_the_page_never_scrolls_sideways(shown: Any) -> None:
    width, inner = shown.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= inner
    # What is wider scrolls on its own.
    assert shown.execute_script(
        "return [...document.querySelectorAll('.scroll')].every(s => s.clientWidth <= document.body.clientWidth)"
    )


def luminance(colour: str) -> float:
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read(shown: Any) -> None:
    ground = shown.execute_script("return getComputedStyle(document.body).backgroundColor")
    colours = shown.execute_script(
        "return Object.fromEntries(['body', '.verdict', 'figcaption', 'td.pass', 'td.fail', 'td.inconclusive',"
        " 'td.rejected', 'td', 'svg text', 'pre'].map(s => {"
        " const e = document.querySelector(s), c = getComputedStyle(e);"
        " return [s, e instanceof SVGElement ? c.fill : c.color]; }))"
    )
    found = {name: contrast(colour, ground) for name, colour in colours.items()}
    assert min(found.values()) >= LEAST_CONTRAST, found


def test_light_is_light_and_dark_is_dark(browser: Any, page: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        show(browser, page, 1280, scheme)
        grounds.append(luminance(browser.execute_script("return getComputedStyle(document.body).backgroundColor")))
    assert grounds[0] > 0.9
    assert grounds[1] < 0.05


def column(browser: Any, index: int) -> list[str]:
    return list(
        browser.execute_script(
            "return [...document.querySelector('table.sortable').tBodies[0].rows]"
            f".map(r => r.cells[{index}].textContent)"
        )
    )


def test_a_click_on_a_header_sorts_by_number(shown: Any, report: Report) -> None:
    heads = shown.find_elements("css selector", "table.sortable:first-of-type th")
    names = [head.text for head in heads if head.text]
    index = names.index("error")
    before = column(shown, index)
    button = shown.find_element("css selector", f"table.sortable th:nth-child({index + 1}) button")
    shown.execute_script("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", button)
    button.click()
    after = column(shown, index)
    numbers = [float(cell) for cell in after if cell != "-"]
    assert sorted(before) == sorted(after)
    assert len(numbers) > 6
    assert numbers == sorted(numbers)
    # As text 1.0e-05 would stand before 9.0e-09.
    assert after != sorted(after)
    assert set(after[len(numbers) :]) == {"-"}
    state = "return arguments[0].closest('th').getAttribute('aria-sort')"
    assert shown.execute_script(state, button) == "ascending"
    button.click()
    down = column(shown, index)
    assert [float(cell) for cell in down if cell != "-"] == numbers[::-1]
    assert down[-1] == "-"
    assert shown.execute_script(state, button) == "descending"


def test_tables_sort_by_keyboard_and_by_name(shown: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    button = shown.find_element("css selector", "table.sortable th:nth-child(1) button")
    button.send_keys(Keys.ENTER)
    names = column(shown, 0)
    assert names == sorted(names)
    assert len(set(names)) == 4


def test_without_its_script_the_page_has_plain_tables(browser: Any, page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, page, 1280, "light")
        assert browser.find_elements("css selector", "th button") == []
        assert [th.text for th in browser.find_elements("css selector", "table.sortable th")][:2] == ["backend", "mode"]
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_it_prints(browser: Any, page: Path) -> None:
    show(browser, page, 1280, "dark")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    paper = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    pdf = base64.b64decode(paper["data"])
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 50_000


def test_paper_is_light_and_cuts_nothing_off(browser: Any, page: Path) -> None:
    # A4 across, without its margins, at 96 pixels per inch; a dark scheme stays on the screen.
    show(browser, page, 1032, "dark", media="print")
    ground, ink, width = browser.execute_script(
        "const c = getComputedStyle(document.body);"
        " return [c.backgroundColor, c.color, document.documentElement.scrollWidth]"
    )
    assert luminance(ground) > 0.9
    assert contrast(ground, ink) > 10
    assert width <= 1032
    wide = browser.execute_script(
        "return [...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > 1033).length"
    )
    assert wide == 0
    broken = browser.execute_script(
        "return [...document.querySelectorAll('figure, tr')].filter(e => getComputedStyle(e).breakInside !== 'avoid')"
        ".length"
    )
    assert broken == 0
