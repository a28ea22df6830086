"""A chart's page fragment as Colab shows it: on a page of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route

from annotated import figures

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))

from annotated_site import assets

HOME = "http://notebook.example/"
MODULE_LOADER = "<script>window.define = Object.assign(() => 0, {amd: {}})</script>"

Open = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, monkeypatch: pytest.MonkeyPatch):
    """Open the fragment of a chart, with or without a network and a module loader."""
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    figures.use_theme()
    page = browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    vega = assets.vega_script() + "window.vegaEmbed = annotatedCharts.vegaEmbed;"
    chart = figures.similarity_map(np.eye(2), ["a", "b"], ["c", "d"], "Same")
    fragment = chart._repr_mimebundle_()["text/html"]

    def open_page(*, network: bool, before: str = "") -> Page:
        def answer(route: Route) -> None:
            address = route.request.url
            if address == HOME:
                body = f"<!doctype html><title>cell</title>{before}{fragment}"
                route.fulfill(body=body, content_type="text/html")
            elif network and address.startswith(figures.NETWORK):
                script = vega if "vega-embed@" in address else ""
                route.fulfill(body=script, content_type="text/javascript")
            else:
                route.abort()

        page.route("**/*", answer)
        page.goto(HOME)
        page.wait_for_load_state("networkidle")
        return page

    yield open_page
    page.close()
    assert faults == []


@pytest.mark.parametrize("before", ["", MODULE_LOADER], ids=["plain", "loader"])
def test_picture_gives_way_to_the_live_chart(opened: Open, before: str) -> None:
    page = opened(network=True, before=before)
    page.wait_for_selector("svg.marks")
    assert page.locator("img").count() == 0
    assert page.evaluate("typeof window.define") == (
        "function" if before else "undefined"
    )


def test_picture_stays_where_there_is_no_network(opened: Open) -> None:
    page = opened(network=False)
    picture = page.locator("img")
    assert picture.get_attribute("alt", timeout=1000).startswith("Same.")
    assert picture.evaluate("image => image.complete && image.naturalWidth > 100")
