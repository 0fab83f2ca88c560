"""The page that `npcache report` writes, opened in a browser: every chart draws, and nothing is asked of the network."""

import json
import re
import subprocess

import numpy as np
import pytest
from conftest import BUILT, LIBRARY, need_tool
from driver import Cache

NPCACHE = LIBRARY.parent / "npcache"
CHARTS = ["bytes", "saved", "hits", "scatter", "drop"]
HOSTILE = "</script><script>alert(1)</script>"

# A browser that asks nothing of anybody by itself.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser():
    chromium = need_tool("chromium", "chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is missing")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


def report(cache, page):
    done = subprocess.run([NPCACHE, "-C", cache, "report", "-o", page], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return page


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a cache of eight functions, one of which nobody should have named so, with hits on each."""
    directory = tmp_path_factory.mktemp("report")
    names = ["heat", "spectrum", "orbit", "mesh.refine", "fit", "volume", "ising", HOSTILE]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("NPCACHE_MEMORY_BYTES", "64M")
        with Cache(directory / "cache") as cache:
            for i, name in enumerate(names):
                for n in range(3 * i + 2):
                    for _ in range(3):
                        cache.call(name, "1", bytes([n]), lambda i=i, n=n: np.zeros(1000 * (8 - i) + n))
    return report(directory / "cache", directory / "report.html")


def opened(browser, page, width, height, scheme="light"):
    """The page in a window, and what went wrong or was asked for while it loaded."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    tab = context.new_page()
    faults, requests = [], []
    tab.on("console", lambda message: faults.append(message.text))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(page.as_uri(), wait_until="load")
    return tab, faults, requests


@pytest.mark.parametrize(
    "name, width, height, scheme",
    [("desktop", 1280, 900, "light"), ("phone", 390, 844, "light"), ("dark", 1280, 900, "dark")],
)
def test_every_chart_draws_without_an_error_or_a_request(browser, page, name, width, height, scheme):
    tab, faults, requests = opened(browser, page, width, height, scheme)
    for chart in CHARTS:
        assert int(tab.get_attribute(f"#{chart}", "data-marks")) >= 8, chart
        box = tab.locator(f"#{chart} svg").bounding_box()
        assert box["height"] > 150 and 200 < box["width"] <= width, (chart, box)
        assert tab.locator(f"#{chart}-table tbody tr").count() >= 8, chart
    assert tab.locator("#bytes rect").count() == 8 and tab.locator("#bytes rect[aria-label^=heat]").count() == 1
    assert HOSTILE in tab.text_content("#bytes-table")
    tiles = tab.locator(".tile b").all_text_contents()
    assert len(tiles) == 5 and re.search(r"^\d+\.\d %$", tiles[1]) and tiles[2] == "100", tiles
    # Nothing sticks out to the side, and the colours are those that were asked for.
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert (tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 19, 22)") == (scheme == "dark")
    tab.locator("#bytes rect").first.hover()
    assert tab.text_content("#tip b") == tab.text_content("#bytes .tile-name >> nth=0")
    BUILT.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=BUILT / f"report-{name}.png", full_page=True)
    assert faults == [] and requests == [page.as_uri()]


@pytest.fixture(scope="module")
def long_page(tmp_path_factory):
    """The report of functions with long names that have no space to break them at."""
    directory = tmp_path_factory.mktemp("w" * 200)
    names = ["plasma_solver.equilibrium.grad_shafranov.FixedBoundarySolver.solve_for_profiles", "W" * 80, "解" * 50]
    with Cache(directory / "cache") as cache:
        for name in [*names, "x" * 4096]:
            for n in range(3):
                cache.call(name, "1", bytes([n]), lambda: np.zeros(1000))
    return report(directory / "cache", directory / "report.html")


@pytest.mark.parametrize("width", [1280, 390])
def test_long_names_do_not_make_the_page_scroll_sideways(browser, long_page, width):
    tab, faults, _ = opened(browser, long_page, width, 900)
    BUILT.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=BUILT / f"report-long-{width}.png", full_page=True)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width and faults == []
    # Names in the charts end before what stands beside them.
    assert tab.locator("#hits text").count() == 8
    for chart, names in ("hits", "#hits text.ink"), ("bytes", "#bytes .tile-name"):
        right = tab.locator(f"#{chart} svg").evaluate("svg => svg.getBoundingClientRect().right")
        ends = tab.locator(names).evaluate_all("names => names.map((name) => name.getBoundingClientRect().right)")
        assert len(ends) >= 2 and max(ends) <= right - (80 if chart == "hits" else 0), (chart, ends, right)


def test_the_charts_are_drawn_anew_for_another_width(browser, page):
    tab, faults, _ = opened(browser, page, 1280, 900)
    wide = tab.locator("#scatter svg").get_attribute("viewBox")
    tab.set_viewport_size({"width": 500, "height": 900})
    tab.wait_for_function("before => document.querySelector('#scatter svg').getAttribute('viewBox') !== before", arg=wide)
    assert tab.locator("#scatter .legend").count() == 1
    assert tab.evaluate("document.documentElement.scrollWidth") <= 500 and faults == []


def test_a_report_of_nothing_says_so(browser, tmp_path):
    Cache(tmp_path / "cache").close()
    tab, faults, requests = opened(browser, report(tmp_path / "cache", tmp_path / "report.html"), 800, 600)
    assert [tab.text_content(f"#{chart}") for chart in CHARTS] == ["Nothing to show yet."] * 5
    assert faults == [] and len(requests) == 1


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())[1])


def test_the_data_are_those_of_the_command(page):
    data = data_of(page)
    listed = subprocess.run([NPCACHE, "-C", page.parent / "cache", "ls", "--json"], capture_output=True, text=True)
    entries = [json.loads(line) for line in listed.stdout.splitlines()]
    assert data["entries"] == len(entries) == 100 == len(data["sample"])
    assert data["bytes"] == sum(entry["bytes"] for entry in entries)
    heat = next(function for function in data["functions"] if function["name"] == "heat")
    assert (heat["entries"], heat["misses"], heat["memory"]) == (2, 2, 4)
    curve = data["drop"]["curve"]
    assert curve == sorted(curve) and curve[-1][0] == data["bytes"]
    assert curve[-1][1] == pytest.approx(data["compute_seconds"])


def test_each_bound_is_one_of_the_directorys(tmp_path):
    Cache(tmp_path / "cache").close()
    for name, value, bounded in ("policy", "lru", False), ("min_free_bytes", "1M", True), ("min_free_bytes", "0", False):
        subprocess.run([NPCACHE, "-C", tmp_path / "cache", "config", name, value], check=True, capture_output=True)
        assert data_of(report(tmp_path / "cache", tmp_path / "report.html"))["drop"]["bounded"] is bounded, (name, value)


def test_the_page_names_no_other(page):
    text = page.read_text()
    assert "default-src 'none'" in text and not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/2000/svg"}
