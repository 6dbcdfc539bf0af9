"""The report page in headless Chromium: what a person clicks, types and sees.

Chromium is the one named by TPT_CHROMIUM, else the system's. Without one these tests are skipped,
but fail where CI_CHROMIUM=1 says that one was installed for them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report.report_sample import sample_confusions, sample_gallery, with_pictures
from report.sample import sample_results

from tpt.report.writer import write_report

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"width": 360, "height": 740}


def find_chromium() -> str:
    """Chromium's path; skips the test, or fails it, where there is none."""
    path = os.environ.get("TPT_CHROMIUM") or shutil.which("chromium")
    if path and Path(path).exists():
        return path
    reason = "No Chromium was found: install Debian's chromium, or name one in TPT_CHROMIUM."
    if os.environ.get("CI_CHROMIUM") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = find_chromium()
    if os.environ.get("CI_CHROMIUM") != "1":
        pytest.importorskip("playwright.sync_api")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file:// address of a page of four sets, four methods and five pictures."""
    folder = tmp_path_factory.mktemp("report")
    results = with_pictures(sample_results(), sample_gallery(), sample_confusions())
    (folder / "results.json").write_text(json.dumps(results))
    write_report(folder)
    return (folder / "report.html").as_uri()


@pytest.fixture
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, just opened; when the test is over nothing was complained of or asked for."""
    context = browser.new_context(**getattr(request, "param", {}))
    opened = context.new_page()
    opened.set_default_timeout(5000)
    complaints: list[str] = []
    requests: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(address)
    yield opened
    context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def read_cells(page: Any, selector: str) -> list[dict[str, str]]:
    """Data attributes of all cells, as the browser has them, with their text."""
    script = "cells => cells.map(cell => ({...cell.dataset, text: cell.innerText}))"
    found: list[dict[str, str]] = page.locator(selector).evaluate_all(script)
    return found


def read_column(page: Any, metric: str) -> list[float | None]:
    """The values of a column of the accuracy table, as shown now."""
    cells = read_cells(page, f'#table-accuracy tr:not([hidden]) td[data-metric="{metric}"]')
    return [float(cell["value"]) if "value" in cell else None for cell in cells]


def read_background(page: Any) -> str:
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return colour


def test_the_numbers_of_the_tables_are_those_of_the_results(page: Any) -> None:
    cells = {
        (cell["dataset"], cell["method"], cell["metric"]): cell
        for table in ("#table-accuracy", "#table-calibration")
        for cell in read_cells(page, f"{table} td[data-metric]")
    }
    compared = 0
    for entry in sample_results()["results"]:
        versus = entry["versus_baseline"] or {}
        values = {**entry["metrics"], "difference": versus.get("difference")}
        for metric, value in values.items():
            cell = cells.get((entry["dataset"], entry["method"], metric), {})
            if value is None:
                assert "value" not in cell
                continue
            assert float(cell["value"]) == value
            digits, factor = (3, 1) if metric in ("nll", "brier") else (1, 100)
            shown = cell["text"].split()[0].replace("\N{MINUS SIGN}", "-").rstrip(",")
            assert float(shown) == pytest.approx(value * factor, abs=0.5001 * 10**-digits)
            compared += 1
    assert compared > 80


def test_a_head_sorts_down_then_up_then_back(page: Any) -> None:
    before = read_column(page, "acc1")
    head = page.locator("#table-accuracy th", has_text="Top-1, %")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert read_column(page, "acc1") == sorted(before, reverse=True)
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert read_column(page, "acc1") == sorted(before)
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "none"
    assert read_column(page, "acc1") == before


def test_rows_without_a_number_are_sorted_last_either_way(page: Any) -> None:
    button = page.locator("#table-accuracy th", has_text="Difference").get_by_role("button")
    for _ in range(2):
        button.click()
        values = read_column(page, "difference")
        assert values[-4:] == [None] * 4
        assert None not in values[:-4]


def test_a_filter_leaves_the_rows_and_marks_of_its_choice(page: Any) -> None:
    form = page.locator('form[data-for="accuracy"]')
    form.get_by_label("Set").select_option("pacs/sketch")
    form.get_by_label("Method").select_option("tpt")
    shown = read_cells(page, '#table-accuracy tr:not([hidden]) [data-metric="acc1"]')
    assert [(cell["dataset"], cell["method"]) for cell in shown] == [("pacs/sketch", "tpt")]
    assert page.locator(".dotrow[data-item]:visible").count() == 1
    marks = page.locator('.dotrow[data-dataset="pacs/sketch"] g:visible')
    assert set(marks.evaluate_all("all => all.map(g => g.dataset.method)")) == {"tpt"}
    assert form.locator("output").inner_text() == "1 of 16 shown"
    form.get_by_label("Set").select_option("")
    form.get_by_label("Method").select_option("")
    assert len(read_column(page, "acc1")) == 16
    assert form.locator("output").inner_text() == ""


def test_a_link_of_the_bar_leads_to_its_part(page: Any) -> None:
    page.get_by_role("navigation").get_by_role("link", name="Calibration").click()
    page.wait_for_function(
        "() => Math.abs(document.getElementById('calibration').getBoundingClientRect().top) < 120"
    )
    assert page.url.endswith("#calibration")


def test_the_switch_changes_the_bins_of_all_diagrams(page: Any) -> None:
    assert page.locator(".bins-15 svg:visible").count() == 3
    assert page.locator(".bins-20 svg:visible").count() == 0
    page.locator("label[for=bins-20]").click()
    assert page.locator(".bins-15 svg:visible").count() == 0
    assert page.locator(".bins-20 svg:visible").count() == 3
    page.keyboard.press("ArrowLeft")
    assert page.locator(".bins-15 svg:visible").count() == 3


@pytest.mark.parametrize(
    "page", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True
)
def test_the_theme_is_the_systems_until_the_button_says_otherwise(page: Any) -> None:
    light, dark = "rgb(253, 253, 252)", "rgb(18, 20, 23)"
    wants_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    first, second = (dark, light) if wants_dark else (light, dark)
    assert read_background(page) == first
    page.get_by_role("button", name="Switch between light and dark").click()
    assert read_background(page) == second
    page.keyboard.press("Enter")
    assert read_background(page) == first


def test_a_picture_opens_by_keyboard_and_arrow_keys_lead_on(page: Any) -> None:
    page.locator('form[data-for="gallery"]').get_by_label("Show").select_option("right")
    page.get_by_role("button", name="Open dog, dog/1.png").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.is_visible()
    assert "1 of 3" in dialog.inner_text()
    assert "dog/1.png" in dialog.inner_text()
    page.keyboard.press("ArrowRight")
    assert "dog/3.png" in dialog.inner_text()  # the second was put wrong and is filtered out
    dialog.get_by_role("button", name="Next picture").click()
    assert "3 of 3" in dialog.inner_text()
    page.keyboard.press("ArrowRight")
    assert "1 of 3" in dialog.inner_text()
    page.keyboard.press("ArrowLeft")
    assert "dog/5.png" in dialog.inner_text()
    assert dialog.locator("img").evaluate_all("all => all.map(i => i.naturalWidth)") == [16, 16, 16]
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    # Back in the page at the picture that was seen last, not at the first.
    assert "dog/5.png" in page.evaluate("document.activeElement.ariaLabel")


def test_tab_reaches_every_control_and_the_skip_link_comes_first(page: Any) -> None:
    describe = """() => {
        const one = document.activeElement;
        const form = one.closest('form')?.getAttribute('data-for');
        return one.className === 'skip' ? 'skip' : one.id || one.className
            || (form ? form + ' ' + one.name : '') || one.hash || one.closest('table')?.id
            || one.tagName;
    }"""
    reached = []
    for _ in range(150):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(describe))
        if reached[-1] == "save":
            break
    assert reached[0] == "skip"
    wanted = {
        "theme",
        "#accuracy",
        "accuracy dataset",
        "accuracy method",
        "table-accuracy",
        "bins-15",
    }
    assert wanted | {"gallery kind", "open", "scroll", "table-changes", "SUMMARY", "save"} <= {
        *reached
    }


def test_a_focused_control_is_seen(page: Any) -> None:
    for _ in range(3):
        page.keyboard.press("Tab")
    style = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(style) == "solid"


@pytest.mark.parametrize("page", [{"viewport": PHONE, "has_touch": True}], indirect=True)
def test_on_a_phone_nothing_is_wider_than_the_screen(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    page.locator("label[for=bins-20]").tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.locator(".item .open").first.tap()
    box = page.get_by_role("dialog").bounding_box()
    assert 0 <= box["x"] <= box["x"] + box["width"] <= PHONE["width"]
    assert page.locator("#viewer-body").evaluate("body => body.scrollWidth <= body.clientWidth")


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_all_is_there_to_read_and_nothing_to_click_in_vain(page: Any) -> None:
    assert page.get_by_role("row", name="pacs/sketch").first.is_visible()
    assert page.locator(".gallery .item").count() == 5
    assert page.locator("button:visible").count() == 0
    assert page.locator("select:visible").count() == 0


def test_the_results_can_be_saved_from_the_page(page: Any) -> None:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save results.json").click()
    assert download.value.suggested_filename == "results.json"
    assert json.loads(Path(download.value.path()).read_text()) == sample_results()


def test_on_paper_the_controls_are_gone_and_every_part_is_open(page: Any) -> None:
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.locator("header.bar").is_visible() is False
    assert page.locator("form.filter:visible").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0


def test_without_chromium_the_reason_is_told_and_in_ci_it_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TPT_CHROMIUM", "/missing/chromium")
    monkeypatch.delenv("CI_CHROMIUM", raising=False)
    with pytest.raises(pytest.skip.Exception, match="No Chromium was found"):
        find_chromium()
    monkeypatch.setenv("CI_CHROMIUM", "1")
    with pytest.raises(pytest.fail.Exception, match="No Chromium was found"):
        find_chromium()
