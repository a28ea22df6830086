"""A notebook in JupyterLab: its text, its charts before and after a run, its run.

The tests of a notebook share one page, from opening it to the end of its run.
"""

from __future__ import annotations

import contextlib
import re

import pytest
from playwright.sync_api import ElementHandle, TimeoutError

from annotated.figures import MIME_TYPE

CHART = ".jp-RenderedVegaLite"
RUN_SECONDS = 1200  # the longest notebook takes four minutes where nobody else computes
# What a reader would take for a slip: marks of Markdown, of MyST, of LaTeX and of HTML.
RAW = re.compile(
    r"\$\$|\$[^$\n]+\$|\\(?:[a-zA-Z]{2,}|[()\[\]])"
    r"|\{[\w:-]+\}|:::|```|\[\^\w|\[!\w+\]|\]\(|!\[|</?[a-z][^<>]*>|\*\*\w|^\s*\|.*\|",
    re.MULTILINE,
)
TEXTS = """() => [...document.querySelectorAll(".jp-RenderedMarkdown")].map(text => {
  const copy = text.cloneNode(true);
  copy.querySelectorAll("pre, code, mjx-container, .jp-InternalAnchorLink")
    .forEach(node => node.remove());
  return copy.textContent;
})"""
PROMPTS = """() => [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")]
  .map(prompt => prompt.textContent.trim())"""


def stored_charts(opened) -> int:
    """Count the charts that the notebook has in its file."""
    return sum(
        MIME_TYPE in output.get("data", {})
        for cell in opened.cells("code")
        for output in cell.outputs
    )


def charts(opened) -> list[ElementHandle]:
    """Give the charts that Lab shows, when each of them is drawn."""
    with contextlib.suppress(TimeoutError):  # then there are fewer, and a test says so
        opened.page.wait_for_function(
            "([chart, n]) => document.querySelectorAll(`${chart} canvas`).length === n",
            arg=[CHART, stored_charts(opened)],
        )
    return opened.page.query_selector_all(f"{CHART}:has(canvas)")


def picture(chart: ElementHandle) -> str:
    """Give what a chart shows, as text that changes when it does."""
    return str(chart.eval_on_selector("canvas", "canvas => canvas.toDataURL()"))


# Places of a canvas where a mark may be: in strong colours, first the wide ones.
COLOURED = """canvas => {
  const {width, height} = canvas, wide = [], narrow = [];
  const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
  const strong = (x, y) => {
    const i = 4 * (y * width + x), colour = data.slice(i, i + 3);
    return Math.max(...colour) - Math.min(...colour) > 100;
  };
  for (let y = 3; y < height - 3; y += 2)
    for (let x = 3; x < width - 3; x += 2)
      if (strong(x, y)) {
        const around = strong(x - 3, y) && strong(x + 3, y) && strong(x, y - 3) &&
                       strong(x, y + 3);
        (around ? wide : narrow).push([x / width, y / height]);
      }
  const some = found => found.filter((_, i) => i % Math.ceil(found.length / 30) === 0);
  return [...some(wide), ...some(narrow)];
}"""
GRID = [((2 * x + 1) / 24, (2 * y + 1) / 24) for y in range(12) for x in range(12)]
A_MOMENT = 100  # milliseconds until a tooltip is there


def has_tooltip(opened, chart: ElementHandle) -> bool:
    """Move the mouse over a chart until a tooltip with text shows up."""
    canvas = chart.query_selector("canvas")
    for across, down in [*canvas.evaluate(COLOURED), *GRID]:
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()  # it moves when Lab draws another cell above it
        x, y = box["x"] + across * box["width"], box["y"] + down * box["height"]
        opened.page.mouse.move(x, y)
        opened.page.wait_for_timeout(A_MOMENT)
        tip = opened.page.query_selector("#vg-tooltip-element.visible")
        if tip and tip.inner_text().strip():
            return True
    return False


def stuck_sliders(opened) -> list[str]:
    """Move each slider from the keyboard; name those that change nothing."""
    stuck = []
    for number, chart in enumerate(charts(opened), 1):
        for slider in chart.query_selector_all("input[type=range]"):
            before = picture(chart)
            slider.focus()
            slider.press("Home")
            slider.press("PageUp")
            try:
                opened.page.wait_for_function(
                    "([c, old]) => c.querySelector('canvas').toDataURL() !== old",
                    arg=[chart, before],
                    timeout=5000,
                )
            except TimeoutError:
                stuck.append(f"chart {number}")
    return stuck


@pytest.mark.parametrize(
    "shown",
    [
        "a {cite}", "a $x_1$", "$$", "a \\frac", ":::{note}", "```", "a [^1]",
        "[!NOTE]", "a ](b", "![a", "a <br>", "</details>", "a **bold**", "| a | b |",
    ],
)  # fmt: skip
def test_marks_are_seen(shown: str) -> None:
    """What stands in a text that was not rendered is noticed."""
    assert RAW.search(shown)


# As it was cloned


def test_text_is_read_without_markup(opened) -> None:
    """Every text is rendered; no mark of Markdown, MyST or LaTeX is left in it."""
    texts = opened.page.evaluate(TEXTS)
    assert len(texts) >= len(opened.cells("markdown"))
    raw = [match.group() for text in texts for match in RAW.finditer(text)]
    assert not raw, f"shown raw: {raw}"


def test_formulas_are_typeset(opened) -> None:
    """Each formula is MathJax's, and none is an error message."""
    wrong = opened.page.evaluate(
        """() => [...document.querySelectorAll("mjx-merror, [data-mjx-error]")]
          .map(node => node.getAttribute("data-mjx-error") || node.textContent)"""
    )
    assert not wrong, f"not typeset: {wrong}"
    asked = any("$" in cell.source for cell in opened.cells("markdown"))
    assert not asked or opened.page.query_selector("mjx-container")


def test_charts_are_drawn_though_nobody_trusts_the_notebook(opened) -> None:
    """Lab draws each stored chart with a Vega of its own."""
    assert len(charts(opened)) == stored_charts(opened)


def test_charts_have_a_tooltip(opened) -> None:
    """A mouse over a chart is told what is there."""
    silent = [
        number
        for number, chart in enumerate(charts(opened), 1)
        if not has_tooltip(opened, chart)
    ]
    opened.page.mouse.move(0, 0)
    assert not silent, f"no tooltip on the charts {silent}"


def test_sliders_change_their_charts(opened) -> None:
    """A slider can be moved, and the chart follows."""
    assert not stuck_sliders(opened)


# Run


def test_runs_from_top_to_bottom(opened) -> None:
    """Run All Cells comes to the end, and no cell fails but those that are to."""
    page = opened.page
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(f"() => ({PROMPTS})().includes('[*]:')")
    page.wait_for_function(
        f"() => !({PROMPTS})().includes('[*]:')", timeout=1000 * RUN_SECONDS
    )
    failed = page.evaluate(
        """() => [...document.querySelectorAll(
          '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]')]
          .map(output => output.textContent.slice(-500))"""
    )
    meant = [
        cell.id
        for cell in opened.cells("code")
        if "raises-exception" in cell.metadata.get("tags", [])
    ]
    assert len(failed) == len(meant), "\n".join(failed)
    counts = [f"[{n}]:" for n in range(1, len(opened.cells("code")) + 1)]
    assert page.evaluate(PROMPTS) == counts


def test_new_charts_answer_like_the_stored_ones(opened) -> None:
    """What a run has drawn follows its slider too."""
    assert len(charts(opened)) == stored_charts(opened)
    assert not stuck_sliders(opened)


# What happened meanwhile


def test_no_request_left_the_machine(opened) -> None:
    """Neither Lab nor a chart asked anybody else for anything."""
    assert not opened.outside


def test_console_is_silent(opened) -> None:
    """No script failed and none complained."""
    assert not opened.errors
