"""The service's life: ready or not, its log and metrics, class lists that it keeps, its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_service import ANIMALS, Gate, Running

from tpt.errors import MethodError, PromptError, ServeError
from tpt.serve._lists import ClassLists
from tpt.serve.server import listen, name_address, serve
from tpt.serve.settings import Asked, ServeSettings
from tpt.streaming.predict_settings import PredictSettings

Picture = Callable[[int], bytes]
TESTS = Path(__file__).parents[1]


# --- readiness and the end ---


def test_what_is_accepted_is_answered_and_nothing_else(
    start: Any, gate: Gate, picture: Picture, wait_until: Any
) -> None:
    running = start()
    assert running.get("/v2/health/ready").json() == {"ready": True}
    with ThreadPoolExecutor() as pool:
        accepted = pool.submit(running.predict, picture(0))
        gate.wait()
        ended = asyncio.run_coroutine_threadsafe(running.service.drain(), running.loop)
        wait_until(lambda: running.service.state == "draining")
        refused = running.predict(picture(1))
        assert refused.status_code == 503
        assert "takes no new work" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) >= 1
        assert running.get("/v2/health/ready").status_code == 503
        assert running.get("/v2/health/live").status_code == 200
        assert not ended.done()
        gate.open()
        assert accepted.result().status_code == 200
        ended.result(10)


@pytest.fixture
def process(tiny_folder: Path) -> Any:
    """Start `tpt serve` in a process of its own; (process, address) when it listens."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: object) -> tuple[subprocess.Popen[str], str]:
        program = (
            f"import sys; sys.path.insert(0, {str(TESTS)!r}); import tiny_model; "
            f"tiny_model.main({str(tiny_folder)!r})"
        )
        command = [sys.executable, "-c", program, "serve", "--port", "0", *map(str, words)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        started.append(run)
        assert run.stderr is not None
        first = run.stderr.readline()
        address = re.search(r"http://\S+", first)
        assert address is not None, first + run.stderr.read()
        assert "Ready: tiny" in run.stderr.readline()
        return run, address[0]

    yield begin
    for run in started:
        run.kill()
        run.communicate()


@pytest.mark.slow
def test_sigterm_in_the_middle_of_load_loses_nothing(process: Any, picture: Picture) -> None:
    run, address = process("--classes", "cat,dog", "--views", 64)
    url, statuses, halfway = f"{address}/v1/predict", [], threading.Event()

    def send(number: int) -> None:
        with httpx.Client(trust_env=False, timeout=20) as client:
            for turn in range(200):
                try:
                    answer = client.post(url, files={"images": ("a.png", picture(number))})
                except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError):
                    return  # it no longer listens: nothing was accepted
                statuses.append(answer.status_code)
                assert answer.status_code != 200 or answer.json()["records"][0]["predictions"]
                if turn == 3:
                    halfway.set()

    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(send, number) for number in range(4)]
        assert halfway.wait(20)
        run.send_signal(signal.SIGTERM)
        _, log = run.communicate(timeout=20)
        for one in sent:
            one.result()
    assert run.returncode == 0
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {line["status"] for line in lines} <= {200, 503}
    answered = [line for line in lines if line["status"] == 200]
    assert len(answered) == statuses.count(200) > 10
    assert "Ending:" in log
    assert "Traceback" not in log


def test_what_is_wrong_with_the_settings_ends_it(tmp_path: Path) -> None:
    wanted = PredictSettings(classes=("a",), init=str(tmp_path / "missing.safetensors"))
    with pytest.raises(PromptError, match=r"missing\.safetensors"):
        serve(wanted, ServeSettings(), port=0)


def test_ctrl_c_ends_it(tiny_folder: Path) -> None:
    told: list[str] = []
    before = signal.getsignal(signal.SIGINT)

    def say(text: str) -> None:
        told.append(text)
        if text.startswith("Ready"):
            signal.raise_signal(signal.SIGINT)

    serve(
        PredictSettings(classes=("a",), model="tiny", device="cpu"),
        ServeSettings(),
        port=0,
        say=say,
    )
    assert [text.split()[0] for text in told] == ["Listening", "Ready:", "Ending:"]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_address_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServeError, match="Choose another --port or --host, or end the"):
            listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ServeError, match="cannot be listened on"):
        listen("no.such.host.invalid", 1)
    with listen("127.0.0.1", 0) as sock:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", name_address(sock))


def test_a_method_with_state_is_refused_at_the_start(start: Any) -> None:
    from tpt.serve._jobs import load_base

    with pytest.raises(MethodError, match="tda keeps state between images"):
        load_base(PredictSettings(classes=("a",), model="tiny", method="tda"))
    with pytest.raises(MethodError, match="tpt keeps state between images"):
        load_base(PredictSettings(classes=("a",), model="tiny", reset="stream"))


@pytest.mark.parametrize("changes", [{"queue": 0}, {"max_batch": 0}, {"timeout_s": 0}])
def test_settings_out_of_their_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=rf"{next(iter(changes))} must be .* got 0"):
        ServeSettings(**changes)


# --- log and metrics ---


def test_a_line_of_the_log_tells_of_a_request_and_not_of_its_pictures(
    start: Any, picture: Picture, wait_until: Any
) -> None:
    running = start()
    with running.client() as client:
        files = [("images", ("secret-name.png", picture(0))), ("images", ("b.png", b"none"))]
        answer = client.post("/v1/predict", files=files, headers={"x-request-id": "mine-7"})
    assert answer.headers["x-request-id"] == "mine-7"
    wait_until(lambda: bool(running.lines))  # the line is written when the answer is sent
    (line,) = running.lines
    assert (line["id"], line["status"], line["path"]) == ("mine-7", 200, "/v1/predict")
    assert (line["images"], line["failed"], line["method"]) == (2, 1, "POST")
    assert line["bytes"] > len(picture(0))
    assert "secret-name" not in json.dumps(line)
    odd = running.get("/v2/health/live", **{"x-request-id": "x" * 99})
    assert re.fullmatch("[0-9a-f]{32}", odd.headers["x-request-id"])


def test_metrics_count_what_happened(start: Any, picture: Picture) -> None:
    running = start()
    running.predict(picture(0), picture(1), b"none")
    running.predict(picture(0), classes=["owl", "elk"])
    running.get("/nowhere")
    answer = running.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    text = answer.text
    for line in (
        'tpt_requests_total{code="200",route="/v1/predict"} 2.0',
        'tpt_requests_total{code="404",route="other"} 1.0',
        'tpt_images_total{outcome="ok"} 3.0',
        'tpt_images_total{outcome="error"} 1.0',
        "tpt_queue_depth 0.0",
        "tpt_batch_size_sum 3.0",
        'tpt_stage_seconds_count{stage="classes"} 1.0',
        'tpt_stage_seconds_count{stage="decode"} 4.0',
        'tpt_request_duration_seconds_count{route="/v1/predict"} 2.0',
    ):
        assert line in text, line
    assert {"read", "classes", "decode", "wait", "adapt"} == {
        *re.findall(r'tpt_stage_seconds_count{stage="(\w+)"}', text)
    }


def test_headers_keep_answers_to_those_who_asked(serving: Running) -> None:
    headers = serving.get("/v1/model").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


# --- class lists ---


def test_a_bounded_number_of_lists_is_kept(start: Any, picture: Picture) -> None:
    running = start(cached_lists=2)
    for names in (["a", "b"], ["c", "d"], ["e", "f"], ["a", "b"]):
        assert running.predict(picture(0), classes=names).status_code == 200
        assert len(running.service._lists) <= 2
    assert running.predict(picture(0), classes=[*ANIMALS]).status_code == 200
    assert len(running.service._lists) == 2  # the service's own is none of them


def test_one_making_serves_all_who_wait_and_the_bound_is_on_all_alive() -> None:
    made: list[Asked] = []
    go = threading.Event()

    def make(asked: Asked) -> Any:
        made.append(asked)
        assert go.wait(10)
        if asked.method == "bad":
            raise MethodError("no")
        return asked

    async def try_it() -> None:
        lists = ClassLists(make, most=1)
        one, two = Asked(("a",)), Asked(("b",))
        using = lists.use(one)

        async def use(asked: Asked) -> Any:
            async with lists.use(asked) as job:
                return job

        first = asyncio.ensure_future(using.__aenter__())
        same = asyncio.ensure_future(use(one))
        other = asyncio.ensure_future(use(two))
        await come_true(lambda: made == [one])  # made once; the other waits for the place
        go.set()
        assert await first is one
        assert await same is one
        await asyncio.sleep(0.05)
        assert made == [one]
        assert not other.done()
        await using.__aexit__(None, None, None)
        assert await other is two
        with pytest.raises(MethodError, match="no"):
            await use(Asked(method="bad"))
        await come_true(lambda: len(lists) == 0)  # what failed is not kept
        waits = asyncio.ensure_future(use(one))
        await asyncio.sleep(0)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert await use(two) is two  # nobody holds the place any more
        # A thread that lived on would keep torch's threads, and slow those of the one that adapts.
        await come_true(lambda: "tpt-work" not in {t.name for t in threading.enumerate()})
        lists.close()

    async def come_true(happens: Callable[[], bool]) -> None:
        deadline = asyncio.get_running_loop().time() + 10
        while not happens():
            assert asyncio.get_running_loop().time() < deadline, "it never came to hold"
            await asyncio.sleep(0.001)

    asyncio.run(try_it())


def test_of_the_threads_that_compute_only_the_one_that_adapts_lives_on(
    start: Any, picture: Picture, wait_until: Any
) -> None:
    before = set(threading.enumerate())
    answer = start().predict(picture(), classes=["fox", "owl"])
    assert answer.status_code == 200, answer.text

    def left() -> list[str]:
        names = [thread.name for thread in set(threading.enumerate()) - before]
        return sorted(name for name in names if not name.startswith("Thread-"))  # the event loop's

    wait_until(lambda: left() == ["tpt-adapt"])


def test_a_long_list_does_not_hold_up_anothers_picture(
    start: Any, picture: Picture, monkeypatch: pytest.MonkeyPatch, wait_until: Any
) -> None:
    running = start()
    make, go = running.service._lists._make, threading.Event()

    def slow(asked: Asked) -> Any:
        if len(asked.classes or ()) > 100:
            assert go.wait(20)
        return make(asked)

    monkeypatch.setattr(running.service._lists, "_make", slow)
    with ThreadPoolExecutor() as pool:
        names = [f"thing {n}" for n in range(200)]
        long = pool.submit(running.predict, picture(0), classes=names)
        wait_until(lambda: len(running.service._lists) == 1)
        assert running.predict(picture(1)).status_code == 200
        assert running.predict(picture(1), classes=["owl", "elk"]).status_code == 200
        assert not long.done()
        go.set()
        assert long.result().status_code == 200
