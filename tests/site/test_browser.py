"""The site as a reader meets it: every page in a browser, wide, dark and on a phone.

A page is opened once for each screen; all that can be seen without touching it is noted
in a ``Visit``, and the tests then look at one thing each.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, ElementHandle, Page, TimeoutError

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
PATIENCE = 20_000  # milliseconds; a chart on a busy machine of two cores may take long
WEIGHT = 700_000  # bytes that a page may ask for before it is touched
FIRST_PAINT = 2000  # milliseconds, on a slow line
# "Slow 4G" as Lighthouse defines it: 1.6 megabits a second, 150 ms for a round trip.
SLOW = {
    "offline": False,
    "latency": 150,
    "downloadThroughput": 200_000,
    "uploadThroughput": 93_750,
}
NOTE_SHIFTS = """
window.shift = 0;
new PerformanceObserver(list => list.getEntries().forEach(e => shift += e.value))
  .observe({type: "layout-shift", buffered: true});
"""


@dataclass(frozen=True)
class Screen:
    """What a reader looks at."""

    width: int
    theme: str

    def __str__(self) -> str:
        """Name it in a test's id: ``1280-dark``."""
        return f"{self.width}-{self.theme}"


SCREENS = [Screen(1280, "light"), Screen(1280, "dark"), Screen(375, "light")]


@dataclass
class Visit:
    """A page that is open in the browser, and what happened while it opened."""

    name: str
    screen: Screen
    page: Page
    outside: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    weight: int = 0  # bytes that have come over the line
    opened: tuple[int, float] = (0, 0.0)  # weight and shift when the page was at rest
    moved: list[str] = field(default_factory=list)  # charts that moved what is below

    def __str__(self) -> str:
        """Begin a message."""
        return f"{self.name} at {self.screen.width} px, {self.screen.theme}"

    @property
    def trouble(self) -> list[str]:
        """All that went wrong so far."""
        return self.outside + self.failed + self.errors

    @property
    def charts(self) -> list[ElementHandle]:
        """The charts of the page."""
        return self.page.query_selector_all("div.annotated-chart")

    @property
    def charts_by_day(self) -> list[ElementHandle]:
        """The charts of a light page, none of a dark one."""
        return self.charts if self.screen.theme == "light" else []

    def read(self) -> None:
        """Go from chart to chart, and note those whose drawing moves the page."""
        for chart in self.charts:
            before = self.page.evaluate("shift")
            chart.scroll_into_view_if_needed()
            with contextlib.suppress(TimeoutError):  # another test says so
                self.page.wait_for_function("c => 'drawn' in c.dataset", arg=chart)
            self.page.evaluate("() => new Promise(requestAnimationFrame)")
            if self.page.evaluate("shift") > before:
                self.moved.append(chart.get_attribute("aria-label") or "?")


def open_page(browser: Browser, address: str, name: str, screen: Screen) -> Visit:
    """Open a page and wait until it is at rest."""
    context = browser.new_context(
        viewport={"width": screen.width, "height": 900},
        color_scheme="dark" if screen.theme == "dark" else "light",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    visit = Visit(name, screen, page)

    def leave(route) -> None:
        visit.outside.append(route.request.url)
        route.abort()

    def weigh(event: dict) -> None:
        visit.weight += int(event["encodedDataLength"])

    line = context.new_cdp_session(page)
    line.on("Network.loadingFinished", weigh)
    line.send("Network.enable")
    page.add_init_script(NOTE_SHIFTS)
    page.route(lambda url: not url.startswith((address, "data:", "blob:")), leave)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on(
        "console",
        lambda message: (
            visit.errors.append(message.text) if message.type == "error" else None
        ),
    )
    page.on(
        "response",
        lambda answer: (
            visit.failed.append(f"{answer.status} {answer.url}")
            if answer.status >= 400
            else None
        ),
    )
    page.goto(f"{address}{name}.html")
    page.evaluate(
        "async () => window.MathJax?.startup && await MathJax.startup.promise"
    )
    page.wait_for_load_state("networkidle")
    visit.opened = visit.weight, page.evaluate("shift")
    return visit


@pytest.fixture(scope="session", params=SCREENS, ids=str)
def screen(request: pytest.FixtureRequest) -> Screen:
    """Each screen in turn."""
    return request.param


@pytest.fixture(scope="session")
def visit(
    browser: Browser, address: str, page_name: str, screen: Screen
) -> Iterator[Visit]:
    """Open one page on one screen for all the tests that look at it."""
    visit = open_page(browser, address, page_name, screen)
    visit.read()
    yield visit
    visit.page.context.close()


# What is seen


def test_charts_are_drawn(visit: Visit) -> None:
    """Each chart says that it is drawn, and shows marks or pixels."""
    undrawn = []
    for number, chart in enumerate(visit.charts, 1):
        name = chart.get_attribute("aria-label") or f"chart {number}"
        try:
            visit.page.wait_for_function("c => 'drawn' in c.dataset", arg=chart)
        except TimeoutError:
            undrawn.append(f"{name}: still nothing")
            continue
        if not chart.query_selector("svg path, canvas"):
            undrawn.append(f"{name}: empty")
    assert not undrawn, f"{visit}: not drawn: {undrawn}"


def test_first_load_is_light(visit: Visit) -> None:
    """What a page asks for before it is touched is small, compressed as on the web."""
    weight, _ = visit.opened
    assert 20_000 < weight < WEIGHT, f"{visit} weighs {weight:,} bytes"


def test_nothing_moves_while_the_page_opens(visit: Visit) -> None:
    """The text stays where the reader began to read it; 0.1 is what counts as good."""
    _, shift = visit.opened
    assert shift < 0.1, f"{visit}: what is read moves by {shift:.3f} of the screen"


def test_charts_move_nothing(visit: Visit) -> None:
    """A chart is drawn in the room that was kept for it."""
    assert not visit.moved, f"{visit}: moved what is below: {visit.moved}"


def test_mathematics_is_typeset(visit: Visit) -> None:
    """Each formula is MathJax's, and none is an error message."""
    raw = visit.page.evaluate(
        """() => [...document.querySelectorAll(".math")]
          .filter(m => !m.querySelector("mjx-container") ||
                       m.querySelector("mjx-merror, [data-mjx-error]"))
          .map(m => m.textContent.slice(0, 60))"""
    )
    assert not raw, f"{visit}: not typeset: {raw}"


def test_no_formula_is_left_in_the_prose(visit: Visit) -> None:
    """No dollar sign or LaTeX command is left for the reader to see."""
    text = visit.page.evaluate(
        """() => {
          const copy = document.querySelector("article").cloneNode(true);
          copy.querySelectorAll("pre, code, script, style, .math, .annotated-chart")
            .forEach(node => node.remove());
          return copy.textContent;
        }"""
    )
    left = re.findall(r"\$\$|\$[^$\n]+\$|\\(?:frac|mathrm|sum|begin)\b.{0,20}", text)
    assert not left, f"{visit}: raw mathematics: {left}"


def test_nothing_is_wider_than_the_screen(visit: Visit) -> None:
    """The page does not scroll sideways; only a box that is made for it may."""
    wide = visit.page.evaluate(
        """() => {
          const width = document.documentElement.clientWidth;
          if (document.scrollingElement.scrollWidth <= width) return [];
          const boxed = node => {
            for (let up = node; up && up !== document.body; up = up.parentElement)
              if (getComputedStyle(up).overflowX !== "visible") return true;
            return false;
          };
          return [...document.querySelectorAll("body *")]
            .filter(n => n.getBoundingClientRect().right > width + 1 && !boxed(n))
            .map(n => `${n.tagName.toLowerCase()}#${n.id}.${n.classList}`)
            .concat("the page scrolls sideways");
        }"""
    )
    assert not wide, f"{visit}: wider than the screen: {wide[:8]}"


def test_page_has_the_theme_of_the_system(visit: Visit) -> None:
    """A reader whose system is dark gets a dark page."""
    theme = visit.page.evaluate("document.documentElement.dataset.theme")
    assert theme == visit.screen.theme, f"{visit}: the theme is {theme}"


# Code has a node for each token, mathematics one for each sign, and the list of all
# names a row for each: thousands a page, and nearly all look like one that was judged
# before. What shows nothing new is taken out. Colours are those of the wide screen, so
# a phone need not be asked about them.
TAKE_OUT_WHAT_IS_KNOWN = """() => {
  const known = new Set();
  for (const block of document.querySelectorAll("pre")) {
    const scrolls = block.scrollWidth > block.clientWidth ? ["it scrolls"] : [];
    const looks = [...block.querySelectorAll("span")].map(span => span.className);
    const fresh = looks.concat(scrolls).filter(look => !known.has(look));
    if (known.size && !fresh.length) block.replaceChildren();
    fresh.forEach(look => known.add(look));
  }
  const rows = [...document.querySelectorAll(".api-names tbody tr")];
  rows.slice(20).forEach(row => row.remove());
  const formulas = [...document.querySelectorAll("mjx-container")];
  formulas.slice(5).forEach(formula => formula.remove());
}"""
RUN_AXE = """([tags, colours]) => axe.run(
  {exclude: [".annotated-chart-view svg"]},
  {
    runOnly: {type: "tag", values: tags},
    rules: {"color-contrast": {enabled: colours}},
    resultTypes: ["violations"],
    preload: false,  // no second request for each style sheet
  }
)"""


def test_no_accessibility_violation(visit: Visit) -> None:
    """axe-core finds nothing against WCAG 2.1, levels A and AA.

    The inside of a chart is left out: it is hidden from assistive technology, which
    reads the name of its frame instead.
    """
    visit.page.evaluate(AXE.read_text(encoding="utf-8"))
    visit.page.evaluate(TAKE_OUT_WHAT_IS_KNOWN)
    result = visit.page.evaluate(RUN_AXE, [WCAG, visit.screen.width > 1000])
    found = [
        f"{rule['id']} ({rule['help']}): "
        + "; ".join(f"{node['target']} {explain(node)}" for node in rule["nodes"][:3])
        for rule in result["violations"]
    ]
    assert not found, f"{visit}:\n" + "\n".join(found)


def explain(node: dict) -> str:
    """Say what axe holds against an element, on one line."""
    return " ".join(node["failureSummary"].split())[:200]


# What is touched. A chart answers a hand in the dark as it does in the light, where it
# is touched: by day, on both widths.


def drawing(chart: ElementHandle) -> str:
    """Give what a chart shows, as text that changes when it does."""
    return chart.eval_on_selector("svg", "svg => svg.outerHTML")


def spots(chart: ElementHandle) -> Iterator[tuple[float, float]]:
    """Give places where a mouse may find something: the marks, then all over."""
    boxes = chart.evaluate(
        """c => [...c.querySelectorAll("svg .mark-symbol path, svg .mark-rect path")]
          .map(path => path.getBoundingClientRect())
          .filter(box => box.width > 1 && box.height > 1).slice(0, 30)
          .map(box => [box.x + box.width / 2, box.y + box.height / 2])"""
    )
    yield from boxes
    box = chart.query_selector("svg").bounding_box()
    steps = [(2 * step + 1) / 32 for step in range(16)]
    for down in steps:
        for across in steps:
            yield box["x"] + across * box["width"], box["y"] + down * box["height"]


def has_tooltip(page: Page, chart: ElementHandle) -> bool:
    """Move the mouse over a chart until a tooltip with text shows up."""
    chart.scroll_into_view_if_needed()
    for x, y in spots(chart):
        page.mouse.move(x, y)
        tip = page.query_selector("#vg-tooltip-element.visible")
        if tip and tip.inner_text().strip():
            return True
    return False


def test_each_chart_has_a_tooltip(visit: Visit) -> None:
    """A mouse over a chart is told what is there."""
    silent = [
        chart.get_attribute("aria-label")
        for chart in visit.charts_by_day
        if not has_tooltip(visit.page, chart)
    ]
    visit.page.mouse.move(0, 0)
    assert not silent, f"{visit}: no tooltip on {silent}"


def test_each_slider_changes_its_chart(visit: Visit) -> None:
    """A slider can be moved with the keyboard, and the chart follows."""
    stuck = []
    for chart in visit.charts_by_day:
        for slider in chart.query_selector_all("input[type=range]"):
            before = drawing(chart)
            slider.focus()
            slider.press("Home")
            slider.press("PageUp")
            if not drawn_anew(visit.page, chart, before):
                stuck.append(chart.get_attribute("aria-label"))
    assert not stuck, f"{visit}: the slider moves and nothing else: {stuck}"


def test_keyboard_reaches_each_control_of_a_chart(visit: Visit) -> None:
    """Tab goes from a chart through its controls; each has a name, and shows."""
    wrong = []
    for chart in visit.charts_by_day:
        chart.focus()
        controls = chart.query_selector_all("input, select")
        for number, control in enumerate(controls, 1):
            visit.page.keyboard.press("Tab")
            name, here, ring = control.evaluate(
                """c => [c.labels[0]?.textContent.trim(), c === document.activeElement,
                         getComputedStyle(c).outlineStyle]"""
            )
            if not (name and here and ring != "none"):
                wrong.append(
                    f"{chart.get_attribute('aria-label')[:40]}: {number} {name}"
                )
    assert not wrong, f"{visit}: by keyboard out of reach, nameless or unseen: {wrong}"


def test_keys_do_what_a_mouse_does_in_a_map(visit: Visit) -> None:
    """A list chooses a group as the legend does, and keys zoom, move and go back."""
    for chart in visit.charts_by_day:
        for choice in chart.query_selector_all(
            ".vega-bind select:has(option[value=''])"
        ):
            before = drawing(chart)
            choice.focus()
            choice.press("ArrowDown")
            assert drawn_anew(visit.page, chart, before), (
                f"{visit}: the list does nothing"
            )
            choice.press("Home")
        if not chart.get_attribute("data-keys"):
            continue
        first = drawing(chart)
        chart.focus()
        for keys in ("+", "Shift+ArrowRight", "-"):
            before = drawing(chart)
            chart.press(keys)
            assert drawn_anew(visit.page, chart, before), (
                f"{visit}: {keys} does nothing"
            )
        before = drawing(chart)
        chart.press("0")
        assert drawn_anew(visit.page, chart, before), f"{visit}: 0 does nothing"
        ticks = re.compile(r">[-−]?[0-9.]+<")
        shown = sorted(ticks.findall(drawing(chart)))
        assert shown == sorted(ticks.findall(first))


def drawn_anew(page: Page, chart: ElementHandle, before: str) -> bool:
    """Tell whether a chart has come to look different from before."""
    try:
        page.wait_for_function(
            "([c, old]) => c.querySelector('svg').outerHTML !== old",
            arg=[chart, before],
            timeout=3000,
        )
    except TimeoutError:
        return False
    return True


def test_theme_button_changes_page_and_charts(visit: Visit) -> None:
    """The button goes round the themes; each chart is drawn anew for the chosen one."""
    page, first = visit.page, visit.screen.theme
    page.evaluate("scrollTo(0, 0)")
    paper = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(paper)
    for _ in range(3):
        page.locator(".theme-switch-button:visible").first.click()
        theme = page.evaluate("document.documentElement.dataset.theme")
        if theme != first:
            break
    assert theme != first, f"{visit}: the theme stays {theme}"
    assert page.evaluate(paper) != before, f"{visit}: the paper stays {before}"
    page.wait_for_function(
        """theme => [...document.querySelectorAll("div.annotated-chart")]
          .every(chart => chart.dataset.drawn === theme)""",
        arg=theme,
    )


# What happened meanwhile. These come last: they also judge what the tests above did.


def test_no_request_left_the_host(visit: Visit) -> None:
    """Opening the page and using it asked no other host for anything."""
    assert not visit.outside, f"{visit}: asked for {visit.outside}"


def test_nothing_was_missing(visit: Visit) -> None:
    """All that the page asked for was there."""
    assert not visit.failed, f"{visit}: {visit.failed}"


def test_console_is_silent(visit: Visit) -> None:
    """No script failed and none complained."""
    assert not visit.errors, f"{visit}: {visit.errors}"


# On a slow line


def heaviest(site) -> list[str]:
    """Name the first page, and the one with the longest text."""
    by_size = sorted(
        site.pages, key=lambda name: (site.html / f"{name}.html").stat().st_size
    )
    return [site.pages[0], by_size[-1]]


def first_paint(browser: Browser, page_address: str) -> float:
    """Open a page for the first time on a slow line; tell when something is seen."""
    page = browser.new_page(viewport={"width": 375, "height": 900})
    page.set_default_timeout(3 * PATIENCE)
    line = page.context.new_cdp_session(page)
    line.send("Network.enable")
    line.send("Network.emulateNetworkConditions", SLOW)
    page.goto(page_address, wait_until="commit")
    painted = page.wait_for_function(
        "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    ).json_value()
    page.context.close()
    return painted


def test_slow_line_shows_the_page_soon(browser: Browser, address: str, site) -> None:
    """The first letters are there within two seconds, at the best of three visits.

    A busy machine makes a visit slower, never faster.
    """
    for name in heaviest(site):
        times = []
        while len(times) < 3 and not any(t < FIRST_PAINT for t in times):
            times.append(first_paint(browser, f"{address}{name}.html"))
        assert min(times) < FIRST_PAINT, f"{name}: first seen after {times} ms"


# Looking for a word


@pytest.mark.parametrize(
    ("word", "address_found"),
    [
        ("bibliography", "book/bibliography.html"),
        (
            "MultiHeadAttention",
            "book/api/transformer.html#annotated.transformer.MultiHeadAttention",
        ),
    ],
    ids=["title", "name"],
)
def test_search_finds(
    browser: Browser, address: str, screen: Screen, word: str, address_found: str
) -> None:
    """A word of a title finds its page, and a name of the package its entry."""
    visit = open_page(browser, address, "book/how-to-read", screen)
    page = visit.page
    page.locator(".search-button:visible, .search-button-field:visible").first.click()
    field = page.locator("input[type=search]:visible").first
    field.fill(word)
    field.press("Enter")
    page.wait_for_selector(f'#search-results li a[href*="{address_found}"]')
    assert not visit.trouble, f"{visit}: {visit.trouble}"
    page.context.close()


def test_front_door_opens_on_the_landing_page(
    browser: Browser, address: str, site
) -> None:
    """Whoever asks for the site's root arrives at its first page."""
    page = browser.new_page()
    page.goto(address)
    page.wait_for_url(f"{address}{site.pages[0]}.html")
    page.close()
