"""What the service refuses: a status and a sentence each, and never a traceback."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest
from _odd_pictures import make_pictures
from PIL import Image
from running_service import Gate, Running

from tpt.errors import ImageError
from tpt.images.decode import load_picture
from tpt.serve import _decoding
from tpt.serve._hosts import choose_hosts
from tpt.serve.settings import Upload

Picture = Callable[[int], bytes]
FORM = {"content-type": "multipart/form-data; boundary=x"}
TASK = "/v1/zero-shot-image-classification"


def expect(answer: Any, status: int, *words: str) -> None:
    """The status, and the words in the error's sentence; nothing else is said."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(answer.json()) == {"error"}
    assert set(error) == {"type", "message"}
    for word in words:
        assert word in error["message"]


def part(text: str, body: bytes = b"") -> bytes:
    return b"--x\r\n" + text.encode() + b"\r\n\r\n" + body + b"\r\n"


def tell_fault(name: str, data: bytes) -> str | None:
    """What the decoder says of a picture, if it refuses it."""
    try:
        load_picture(Upload(name, data), 1_000_000)
    except ImageError as error:
        return str(error)
    return None


def make_bomb(width: int = 2**30, height: int = 2**30) -> bytes:
    """A PNG that declares more pixels than it has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


# --- bodies ---

IMAGE = 'Content-Disposition: form-data; name="images"; filename="a.png"'
MALFORMED: dict[str, tuple[dict[str, str], bytes, int, str]] = {
    "empty": ({}, b"", 422, "expected multipart/form-data"),
    "json": ({"content-type": "application/json"}, b"{}", 422, 'is of type "application/json"'),
    "a picture as it is": ({"content-type": "image/png"}, b"\x89PNG", 422, "curl -F images=@"),
    "no boundary": ({"content-type": "multipart/form-data"}, b"x", 422, "it has no boundary"),
    "another boundary": (FORM, b"--y\r\n\r\n--y--\r\n", 422, "not a whole multipart form"),
    "no parts": (FORM, b"--x--\r\n", 422, "holds no file called images"),
    "nothing": (FORM, b"", 422, "its end is missing"),
    "cut in a head": (FORM, b"--x\r\nContent-Dispo", 422, "its end is missing"),
    "cut in a file": (FORM, part(IMAGE, b"\x89PNG\r\n")[:-2], 422, "its end is missing"),
    "no name": (FORM, part("Content-Disposition: form-data") + b"--x--", 422, "a part has no name"),
    "no disposition": (FORM, part("A: b", b"1") + b"--x--", 422, "a part has no name"),
    "bad head": (FORM, part("nonsense without a colon") + b"--x--", 422, "not a whole"),
    "control characters": (FORM, part("\0\1: \2") + b"--x--", 422, "not a whole"),
    "file is text": (FORM, part(IMAGE[:45]) + b"--x--", 422, "file name"),
    "other file": (FORM, part(IMAGE.replace("images", "x")) + b"--x--", 422, 'file called "x"'),
    "empty file": (FORM, part(IMAGE) + b"--x--\r\n", 415, "is empty (0 bytes)"),
    "text as a file": (FORM, part(IMAGE, b"hello") + b"--x--\r\n", 415, "is not an image"),
    "zeros": (FORM, part(IMAGE, bytes(5000)) + b"--x--\r\n", 415, "'a.png'"),
    "html": (FORM, part(IMAGE, b"<script>1</script>") + b"--x--\r\n", 415, "is not an image"),
    "svg": (FORM, part(IMAGE, b"<svg xmlns='...'/>") + b"--x--\r\n", 415, "is not an image"),
    "eps": (FORM, part(IMAGE, b"%!PS-Adobe-3.0 EPSF") + b"--x--\r\n", 415, "is not an image"),
    "urlencoded": (
        *({"content-type": "application/x-www-form-urlencoded"}, b"images=a.png", 422),
        "expected multipart",
    ),
    "path as a name": (
        *(FORM, part(IMAGE.replace("a.png", "../../etc/passwd"), b"x") + b"--x--\r\n", 415),
        "'../../etc/passwd' is not an image",
    ),
    "many fields": (
        *(FORM, b"".join(part(f'Content-Disposition: form-data; name="{n}"') for n in range(99))),
        *(422, "more than 64 fields"),
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_upload_is_told(serving: Running, name: str) -> None:
    headers, body, status, words = MALFORMED[name]
    with serving.client() as client:
        expect(client.post("/v1/predict", content=body, headers=headers), status, words)
    assert all("traceback" not in line for line in serving.lines)
    assert len(MALFORMED) == 24


def test_odd_and_hostile_pictures_are_answered_as_they_are_decoded(serving: Running) -> None:
    pictures = [*make_pictures().values()]
    for first in range(0, len(pictures), 40):
        some = pictures[first : first + 40]
        answer = serving.predict(*some, method="zero_shot")
        assert answer.status_code == 200, answer.text
        for number, (data, record) in enumerate(zip(some, answer.json()["records"], strict=True)):
            assert record.get("error", {}).get("message") == tell_fault(f"{number}.png", data)
            assert ("predictions" in record) == ("error" not in record)
    assert all("traceback" not in line for line in serving.lines)


def test_a_truncated_picture_is_not_a_picture(serving: Running, picture: Picture) -> None:
    file = io.BytesIO()
    Image.new("RGB", (400, 300), (9, 80, 200)).save(file, "BMP")
    expect(serving.predict(file.getvalue()[:2000]), 415, "damaged or cut short", "'0.png'")


def test_a_bomb_is_refused_by_its_declared_size(serving: Running) -> None:
    expect(serving.predict(make_bomb()), 413, "1073741824 x 1073741824", "at most 1,000,000 in all")
    expect(serving.predict(make_bomb(1001, 1000)), 413, "1001 x 1000 pixels")


def test_a_large_body_is_refused_by_its_declared_length(serving: Running) -> None:
    expect(serving.predict(bytes(500_000)), 413, "larger than 400,000 bytes")


def test_a_large_body_is_refused_while_it_streams_in(serving: Running, wait_until: Any) -> None:
    sent = 0

    def stream() -> Any:
        nonlocal sent
        yield part(IMAGE)[:-2]
        while True:
            sent += 50_000
            yield bytes(50_000)
            time.sleep(0.005)

    with serving.client() as client, suppress(httpx.TransportError):
        # Where the connection is closed while more is sent, the answer may not be seen.
        answer = client.post("/v1/predict", content=stream(), headers=FORM)
        expect(answer, 413, "larger than 400,000 bytes")
    assert sent < 20_000_000
    wait_until(lambda: serving.service.held == 0)


def test_all_requests_together_hold_a_bounded_number_of_bytes(
    start: Any, gate: Gate, picture: Picture
) -> None:
    running = start(max_held=30_000)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(running.predict, picture(0) + bytes(10_000))
        gate.wait()
        second = running.predict(picture(1) + bytes(20_000))
        expect(second, 429, "the limit is 30,000")
        assert int(second.headers["retry-after"]) >= 1
        gate.open()
        assert first.result().status_code == 200
    assert running.service.held == 0


# --- parameters ---


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"classes": "cat,dog"}, "classes is a JSON list of names"),
        ({"classes": "{}"}, "got '{}'"),
        ({"classes": "[1]"}, "JSON list of names"),
        ({"classes": "[" * 5000}, "JSON list of names"),
        ({"classes": []}, "No class names were given; at least one is needed"),
        ({"classes": ["cat", ""]}, "Class name number 2 of 2 is empty"),
        ({"classes": ["word " * 100]}, "reads"),
        ({"classes": [str(n) for n in range(2000)]}, "2,000 names; expected at most 1,000"),
        ({"method": "tqt"}, 'Unknown method "tqt". Did you mean "tpt"'),
        ({"method": "tda"}, "keeps state between images"),
        ({"template": "a {} of {}"}, "2 places for the class name"),
        ({"template": "a photo", "method": "vte"}, "0 places for the class name"),
        ({"template": ["a {}", "the {}"]}, "starts from one template, but 2 were given"),
        ({"top_k": "0"}, 'top_k is "0"; expected a whole number'),
        ({"top_k": "many"}, "a whole number of at least 1"),
        ({"top_k": ["1"]}, "a whole number"),
        ({"details": "please"}, "expected 1 or 0"),
        ({"class": "cat"}, 'Unknown field "class". Did you mean "classes"?'),
    ],
)
def test_a_wrong_parameter_is_told_as_by_the_command_line(
    serving: Running, picture: Picture, fields: dict[str, Any], words: str
) -> None:
    if "template" in fields:
        with serving.client() as client:
            files = {"images": ("0.png", picture(0))}
            expect(client.post("/v1/predict", files=files, data=fields), 422, words)
        return
    expect(serving.predict(picture(0), **fields), 422, words)


def test_a_field_stands_once(serving: Running, picture: Picture) -> None:
    with serving.client() as client:
        data = {"method": ["tpt", "vte"]}
        answer = client.post("/v1/predict", files={"images": ("a.png", picture(0))}, data=data)
    expect(answer, 422, "The field method came 2 times")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "The body is not JSON"),
        (b"[" * 100_000, "The body is not JSON"),
        (b"\xff\xfe", "The body is not JSON"),
        (b"[]", "the body has no text called inputs"),
        (b'{"inputs": 3}', "no text called inputs"),
        (b'{"inputs": "%%%"}', "inputs is not base64"),
        (b'{"inputs": "\\ud800"}', "inputs is not base64"),
        (b'{"inputs": "", "parameters": 1}', "parameters is a JSON object"),
        (b'{"inputs": "", "parameters": {"candidate_labels": "a"}}', "candidate_labels is a JSON"),
        (b'{"inputs": "", "parameters": {"hypothesis_template": 1}}', "hypothesis_template is"),
    ],
)
def test_a_wrong_task_is_told(serving: Running, body: bytes, words: str) -> None:
    with serving.client() as client:
        expect(client.post(TASK, content=body), 422, words)


def test_a_task_without_a_picture_is_told(serving: Running) -> None:
    with serving.client() as client:
        expect(client.post(TASK, json={"inputs": ""}), 415, "is empty (0 bytes)")


def test_class_names_are_needed_from_somewhere(start: Any, picture: Picture) -> None:
    running = start({"classes": None})
    expect(running.predict(picture(0)), 422, "Neither the request nor the service has class names")
    assert running.predict(picture(0), classes=["a", "b"]).status_code == 200


def test_a_class_specific_prompt_keeps_its_classes(
    start: Any, picture: Picture, tiny: Any, tmp_path: Any
) -> None:
    import torch

    import tpt

    context = tpt.Context(torch.randn(2, 4, tiny.width)).described(classes=("owl", "elk"))
    context.save(tmp_path / "csc.safetensors")
    running = start({"init": str(tmp_path / "csc.safetensors"), "classes": None})
    expect(running.predict(picture(0), classes=["owl", "cat"]), 422, 'number 2 is "elk", but "cat"')
    assert running.predict(picture(0)).status_code == 200


# --- addresses and callers ---


def test_an_unknown_address_is_told(serving: Running) -> None:
    expect(serving.get("/v1/predct"), 404, 'Did you mean "/v1/predict"?')
    expect(serving.get("/" + "x" * 5000), 404, "There is nothing at")
    expect(serving.get("/v1/predict"), 405, "/v1/predict does not take GET")


def test_a_token_is_asked_for(start: Any, picture: Picture) -> None:
    running = start(token="open sesame")
    answer = running.predict(picture(0))
    expect(answer, 401, "Authorization: Bearer TOKEN")
    assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/v1/model", "/metrics", "/openapi.json"):
        expect(running.get(path), 401, "missing or wrong")
        expect(running.get(path, authorization="Bearer wrong"), 401, "missing or wrong")
        assert running.get(path, authorization="Bearer open sesame").status_code == 200
    for path in ("/", "/v2/health/live", "/v2/health/ready"):
        assert running.get(path).status_code == 200


def test_pages_of_other_sites_may_not_call(start: Any) -> None:
    running = start(origins=("https://friend.example",))
    other = running.get("/v1/model", origin="https://other.example")
    expect(other, 403, 'Pages of "https://other.example" may not call', "--allow-origin")
    assert "access-control-allow-origin" not in other.headers
    friend = running.get("/v1/model", origin="https://friend.example")
    assert friend.headers["access-control-allow-origin"] == "https://friend.example"
    assert running.get("/v1/model", origin=running.url).status_code == 200


@pytest.mark.parametrize("path", ["/", "/v1/model", "/v2/health/live", "/nowhere"])
def test_a_page_cannot_pose_as_the_service_under_a_name_of_its_own(start: Any, path: str) -> None:
    running = start(hosts=choose_hosts("127.0.0.1", ["tpt.example", "*.lab.example"]))
    for name in ("evil.example:8000", "tpt.example.evil.example", "lab.example", "[", "a b"):
        words = f'does not answer as "{name}"', "--allow-host"
        expect(running.get(path, host=name), 421, *words)
    known = ("tpt.example", "TPT.example.:443", "a.b.lab.example", "localhost:8000", "[::1]:80")
    for name in (*known, "127.0.0.1", "tpt.localhost"):
        assert running.get(path, host=name).status_code == (404 if path == "/nowhere" else 200)


@pytest.mark.parametrize(
    ("host", "allowed", "hosts"),
    [
        ("127.0.0.1", [], ("127.0.0.1",)),
        ("localhost", [], ("localhost",)),
        ("::1", ["Tpt.Example"], ("::1", "tpt.example")),
        ("127.0.0.1", ["*"], None),
        ("0.0.0.0", [], None),
        ("192.0.2.1", ["tpt.example"], ("192.0.2.1", "tpt.example")),
    ],
)
def test_names_are_known_where_it_listens_on_loopback(
    host: str, allowed: list[str], hosts: tuple[str, ...] | None
) -> None:
    assert choose_hosts(host, allowed) == hosts


# --- time and room ---


def test_a_full_queue_is_told_at_once(
    start: Any, gate: Gate, picture: Picture, wait_until: Any
) -> None:
    running = start(queue=2)
    with ThreadPoolExecutor() as pool:
        held = [pool.submit(running.predict, picture(0))]
        gate.wait()
        expect(running.predict(picture(1), picture(2)), 429, "1 of 2 places are taken, and 2 more")
        held.append(pool.submit(running.predict, picture(1)))
        wait_until(lambda: running.service.taken == 2)
        answer = running.predict(picture(2))
        expect(answer, 429, "The queue is full: 2 of 2 places are taken", "Try again in about")
        assert int(answer.headers["retry-after"]) >= 1
        gate.open()
        assert [one.result().status_code for one in held] == [200, 200]
    expect(
        running.predict(*map(picture, range(3))),
        413,
        "more than 2 pictures, the length of the queue",
    )


def test_an_answer_that_is_late_is_given_up(
    start: Any, gate: Gate, picture: Picture, wait_until: Any
) -> None:
    running = start(timeout_s=0.3)
    expect(running.predict(picture(0)), 504, "The answer was not ready within 0.3 s")
    wait_until(lambda: running.service.taken == 0)


def test_a_client_that_sends_slowly_is_given_up(start: Any) -> None:
    running = start(timeout_s=0.5)
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        head = "POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n"
        slow.sendall(f"{head}Content-Type: {FORM['content-type']}\r\n\r\n".encode())
        slow.settimeout(0.1)
        answer = b""
        for byte in b"--x\r\n" * 100:
            try:
                slow.sendall(bytes([byte]))
                answer = slow.recv(10_000)
            except TimeoutError:
                continue
            break
    assert b"504" in answer.split(b"\r\n")[0]
    assert running.service.held == 0


def test_the_work_of_a_client_that_went_away_is_dropped(
    start: Any, gate: Gate, picture: Picture, wait_until: Any
) -> None:
    running = start()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(running.predict, picture(0))
        gate.wait()
        body = json.dumps({"inputs": base64.b64encode(picture(1)).decode()}).encode()
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as gone:
            head = f"POST {TASK} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
            gone.sendall(head.encode() + body)
            wait_until(lambda: len(running.service._worker._waiting) == 1)
        wait_until(lambda: running.service.taken == 1)
        gate.open()
        assert first.result().status_code == 200
    assert running.predict(picture(2)).status_code == 200
    assert gate.batches == [1, 1]
    assert 499 in [line["status"] for line in running.lines]
    assert 'tpt_images_total{outcome="dropped"} 1.0' in running.get("/metrics").text


def test_a_decoder_that_hangs_is_given_up_and_others_go_on(
    start: Any, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start(num_workers=1)
    running.service._decoder._time_limit = 0.2
    load = _decoding.load_picture

    def hang(upload: Any, most: int) -> Any:
        if upload.data == b"slow":
            time.sleep(1)
        return load(upload, most)

    monkeypatch.setattr(_decoding, "load_picture", hang)
    expect(running.predict(b"slow"), 504, "took longer than 0.2 s and was given up")
    assert running.predict(picture(0)).status_code == 200


def test_a_fault_of_ours_is_told_without_a_traceback_to_the_client(
    start: Any, picture: Picture, monkeypatch: pytest.MonkeyPatch, wait_until: Any
) -> None:
    running = start()
    monkeypatch.setattr(running.service, "predict", None)
    answer = running.predict(picture(0))
    expect(answer, 500, "Its log has the details")
    wait_until(lambda: bool(running.lines))
    assert "TypeError" in running.lines[-1]["error"]
    assert running.lines[-1]["id"] == answer.headers["x-request-id"]
