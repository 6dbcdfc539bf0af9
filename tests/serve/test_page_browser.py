"""The page in headless Chromium: what a person drops, clicks, types and sees.

Chromium is found as for the report's page (tests/report/test_page_browser.py).
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report.test_page_browser import PHONE, browser  # noqa: F401
from running_service import ANIMALS, Gate, Running

Picture = Callable[[int], bytes]
CARD = "article.item"


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:  # noqa: F811
    """Open a service's page; in the end nothing was asked of another host."""
    contexts: list[Any] = []
    asked: list[str] = []
    faults: list[str] = []

    def begin(running: Running, **settings: Any) -> Any:
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda told: faults.append(told.text) if "Policy" in told.text else None)
        page.goto(running.url + "/")
        page.wait_for_function("() => document.querySelectorAll('#method option').length > 3")
        return page

    yield begin
    for context in contexts:
        context.close()
    assert faults == []
    own = ("http://127.0.0.1:", "data:", "blob:")
    assert [url for url in asked if not url.startswith(own)] == []


@pytest.fixture
def drop() -> Callable[..., None]:
    """Drop pictures on the page, each (name, bytes)."""

    def act(page: Any, *pictures: tuple[str, bytes]) -> None:
        files = [[name, base64.b64encode(data).decode()] for name, data in pictures]
        script = """files => {
            const carried = new DataTransfer();
            for (const [name, data] of files) {
                const bytes = Uint8Array.from(atob(data), one => one.charCodeAt(0));
                carried.items.add(new File([bytes], name, {type: "image/png"}));
            }
            const options = {dataTransfer: carried, bubbles: true, cancelable: true};
            document.getElementById("drop").dispatchEvent(new DragEvent("drop", options));
        }"""
        page.evaluate(script, files)

    return act


def wait_for_answers(page: Any, count: int) -> None:
    page.wait_for_function(
        f"() => document.querySelectorAll('{CARD} .kind').length === {count} && "
        f"[...document.querySelectorAll('{CARD} .kind')].every(k => k.innerText !== 'waits')"
    )


def read_bars(page: Any, side: int) -> dict[str, float]:
    """The shares of the first picture's bars: 0 zero-shot, 1 adapted."""
    bars = page.locator(f"{CARD} .pair").first.locator("> div").nth(side).locator("li")
    script = "all => all.map(li => [li.querySelector('bdi').innerText, +li.dataset.share])"
    return dict(bars.evaluate_all(script))


def test_a_dropped_picture_is_answered_and_follows_the_classes(
    serving: Running, open_page: Any, drop: Any, picture: Picture
) -> None:
    page = open_page(serving)
    assert page.locator("#classes").input_value() == ", ".join(ANIMALS)
    drop(page, ("one.png", picture(0)))
    wait_for_answers(page, 1)
    (record,) = serving.predict(picture(0), details="1").json()["records"]
    assert read_bars(page, 1) == {p["label"]: p["score"] for p in record["predictions"]}
    before = {p["label"]: p["score"] for p in record["details"]["zero_shot"]}
    assert read_bars(page, 0) == before
    assert page.locator(".kept img").count() == 4
    assert page.locator(".kept img").evaluate_all("all => all.every(i => i.naturalWidth > 0)")
    entropy = f"before {record['adapt']['entropy_before']:.4f}"
    assert entropy in page.locator(".entropy").inner_text()
    assert " ms." in page.locator(".entropy").inner_text()
    page.locator("#classes").fill("owl\nelk")
    page.locator("#classes").blur()
    page.wait_for_function(
        "() => document.querySelector('.answers bdi').innerText.match(/owl|elk/)"
    )
    assert set(read_bars(page, 1)) == {"owl", "elk"}
    page.locator("#method").select_option("zero_shot")
    page.wait_for_function("() => document.body.innerText.includes('plain picture alone')")
    page.locator("#start").select_option("words")
    page.locator("#words").fill("a sketch of a {}")
    page.locator("#words").blur()
    wait_for_answers(page, 1)
    wanted = serving.predict(
        picture(0), classes=["owl", "elk"], method="zero_shot", template="a sketch of a {}"
    ).json()["records"][0]["predictions"]
    share = "+document.querySelector('.pair > div + div li').dataset.share"
    page.wait_for_function(f"() => {share} === {wanted[0]['score']}")


def test_several_pictures_are_listed_and_a_bad_one_is_told(
    serving: Running, open_page: Any, drop: Any, picture: Picture
) -> None:
    page = open_page(serving)
    drop(page, ("one.png", picture(0)), ("bad <b>.png", b"no picture"), ("two.png", picture(1)))
    wait_for_answers(page, 3)
    assert page.locator(f"{CARD} h3").all_inner_texts() == ["two.png", "bad <b>.png", "one.png"]
    assert "is not an image" in page.locator(CARD).nth(1).inner_text()
    assert page.locator("#status").inner_text() == "2 of 3 answered."
    page.get_by_role("button", name="Remove bad <b>.png").click()
    assert page.locator(CARD).count() == 2
    page.get_by_role("button", name="Remove all").click()
    assert page.locator(CARD).count() == 0


def test_the_call_is_copied_and_gives_the_same_answer(
    serving: Running, open_page: Any, drop: Any, picture: Picture, tmp_path: Path
) -> None:
    page = open_page(serving, permissions=["clipboard-read", "clipboard-write"])
    page.locator("#classes").fill("it's an owl, elk")
    drop(page, ("one.png", picture(0)))
    page.locator("#classes").blur()
    wait_for_answers(page, 1)
    page.locator(f"{CARD} summary").click()
    page.get_by_role("button", name="Copy curl").click()
    page.wait_for_function("() => document.getElementById('status').innerText.includes('copied')")
    words = shlex.split(page.evaluate("navigator.clipboard.readText()").replace("\\\n", " "))
    assert words[:2] == ["curl", f"{serving.url}/v1/predict"]
    fields = dict(word.split("=", 1) for word in words[3::2])
    assert fields.pop("images") == "@one.png"
    assert json.loads(fields["classes"]) == ["it's an owl", "elk"]
    assert fields["method"] == "tpt"
    page.get_by_role("button", name="Copy Python").click()
    page.wait_for_function("() => document.getElementById('status').innerText.startsWith('Python')")
    program = page.evaluate("navigator.clipboard.readText()")
    (tmp_path / "one.png").write_bytes(picture(0))
    printed: list[dict[str, Any]] = []
    program = program.replace('open("one.png"', f"open({str(tmp_path / 'one.png')!r}")
    exec(program, {"print": printed.append})
    answered = {one["label"]: one["score"] for one in printed[0]["predictions"]}
    assert answered == read_bars(page, 1)


def test_a_full_queue_is_told_and_no_picture_is_lost(
    start: Any, open_page: Any, drop: Any, gate: Gate, picture: Picture
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    running = start(queue=1)
    page = open_page(running)
    with ThreadPoolExecutor() as pool:
        other = pool.submit(running.predict, picture(5))
        gate.wait()
        drop(page, ("one.png", picture(0)))
        page.locator("#trouble").wait_for(state="visible")
        told = page.locator("#trouble").inner_text()
        assert "The queue is full" in told
        assert "Your pictures are kept." in told
        assert page.locator(f"{CARD} .kind").inner_text() == "waits"
        gate.open()
        assert other.result().status_code == 200
        page.get_by_role("button", name="Try again now").click()
        wait_for_answers(page, 1)
        assert page.locator("#trouble").is_hidden()


def test_a_service_that_is_gone_is_told(
    open_page: Any, drop: Any, start: Any, picture: Any
) -> None:
    running = start()
    page = open_page(running)
    page.route("**/v1/predict", lambda route: route.abort())
    drop(page, ("one.png", picture(0)))
    page.locator("#trouble").wait_for(state="visible")
    assert "does not answer. Your pictures are kept." in page.locator("#trouble").inner_text()
    page.unroute("**/v1/predict")
    page.get_by_role("button", name="Try again now").click()
    wait_for_answers(page, 1)


def test_a_token_is_asked_for(start: Any, browser: Any, picture: Picture) -> None:  # noqa: F811
    running = start(token="sesame")
    page = browser.new_page()
    page.goto(running.url + "/")
    page.locator("#token-field").wait_for(state="visible")
    page.locator("#token").fill("sesame")
    page.get_by_role("button", name="Try again now").click()
    page.wait_for_function("() => document.querySelectorAll('#method option').length > 3")
    assert page.locator("#trouble").is_hidden()
    page.close()


def test_by_keyboard_alone(
    serving: Running, open_page: Any, picture: Picture, tmp_path: Path
) -> None:
    (tmp_path / "one.png").write_bytes(picture(0))
    page = open_page(serving)
    # The browser is asked for its dialogs early: the request is not waited for, and Enter is fast.
    page.on("filechooser", lambda chooser: None)
    seen = []
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        style = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(style) in ("solid", "auto")
        if seen[-1] == "choose":
            break
    assert seen == ["skip", "theme", "classes", "method", "start", "choose"]
    with page.expect_file_chooser() as chosen:
        page.keyboard.press("Enter")
    chosen.value.set_files(tmp_path / "one.png")
    wait_for_answers(page, 1)
    for wanted in ("photo", "clear", "small-button", "SUMMARY"):
        page.keyboard.press("Tab")
        script = (
            "(({id, className, tagName}) => id || className || tagName)(document.activeElement)"
        )
        assert page.evaluate(script) == wanted
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="Copy curl").is_visible()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.locator(CARD).count() == 0
    assert page.evaluate("document.activeElement.id") == "choose"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_either_theme(
    serving: Running, open_page: Any, drop: Any, picture: Picture, scheme: str
) -> None:
    page = open_page(serving, viewport=PHONE, has_touch=True, color_scheme=scheme)
    page.locator("#classes").fill("a word of very many letters " + "x" * 60 + ", owl")
    drop(page, ("n" * 120 + ".png", picture(0)))
    wait_for_answers(page, 1)
    page.locator(f"{CARD} summary").tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(253, 253, 252)", "dark": "rgb(18, 20, 23)"}[scheme]
    page.get_by_role("button", name="Switch between light and dark").tap()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != background
