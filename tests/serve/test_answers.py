"""What the service answers is what `tpt predict` says, alone and in batches of many clients."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from running_service import ANIMALS, Gate, Running

from cli.main import main

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "images").iterdir())
Picture = Callable[[int], bytes]


def without_ms(record: dict[str, Any]) -> dict[str, Any]:
    adapt = {key: value for key, value in record.get("adapt", {}).items() if key != "ms"}
    return record | ({"adapt": adapt} if adapt else {}) | {"path": Path(record["path"]).name}


def predict_by_command(*words: object) -> list[dict[str, Any]]:
    """The records of `tpt predict`, without their timings."""
    result = CliRunner().invoke(main, ["predict", *map(str, words)], catch_exceptions=False)
    assert result.exit_code in (0, 3), result.stderr
    return [without_ms(json.loads(line)) for line in result.stdout.splitlines()]


def ask(running: Running, path: Path, **fields: Any) -> dict[str, Any]:
    data = {key: json.dumps(v) if isinstance(v, list) else v for key, v in fields.items()}
    with running.client() as client, path.open("rb") as file:
        answer = client.post("/v1/predict", files={"images": (path.name, file)}, data=data)
    assert answer.status_code == 200, answer.text
    (record,) = answer.json()["records"]
    return without_ms(record)


@pytest.mark.slow
def test_every_example_is_answered_as_by_the_command(start: Any) -> None:
    names = ("cat", "cup", "person", "camera", "dog")
    running = start({"model": "lite", "classes": names, "views": 4}, max_batch=8, max_wait_ms=20)
    words = ("--classes", ",".join(names), "--views", 4, "--keep", 0.5, "--device", "cpu")
    expected = predict_by_command(*EXAMPLES, *words)
    assert [ask(running, path) for path in EXAMPLES] == expected
    with ThreadPoolExecutor(8) as pool:  # under load, beside other lists and methods
        others = [
            pool.submit(ask, running, path, classes=["owl", "elk"], method=method)
            for path, method in zip(EXAMPLES[:6], ("vte", "tpt", "zero_shot") * 2, strict=True)
        ]
        assert list(pool.map(lambda path: ask(running, path), EXAMPLES)) == expected
    assert all(other.result()["predictions"] for other in others)


def test_a_batch_of_many_lists_and_methods_answers_each_as_alone(
    start: Any, gate: Gate, picture: Picture, tmp_path: Path, wait_until: Any
) -> None:
    running = start(max_batch=8, max_wait_ms=50)
    wanted = [
        ("tpt", ANIMALS),
        ("vte", ("owl", "elk")),
        ("zero_shot", ANIMALS),
        ("tpt", ("a", "b")),
    ]
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for number, path in enumerate(paths):
        path.write_bytes(picture(number))
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(ask, running, paths[0])  # holds the worker while the others come
        gate.wait()
        asked = [
            pool.submit(ask, running, path, method=method, classes=list(names))
            for path, (method, names) in zip(paths, wanted * 2, strict=True)
        ]
        wait_until(lambda: len(running.service._worker._waiting) == 8)
        gate.open()
        answers = [answer.result() for answer in asked]
        first.result()
    assert gate.batches == [1, 8]
    for path, answer, (method, names) in zip(paths, answers, wanted * 2, strict=True):
        more = () if method == "zero_shot" else ("--views", 4)
        more = (*more, "--keep", 0.5) if method == "tpt" else more
        words = ("--classes", ",".join(names), "--method", method, "--model", "tiny")
        assert [answer] == predict_by_command(path, *words, *more, "--device", "cpu")


def test_a_bad_picture_among_good_ones_is_its_record(
    serving: Running, picture: Picture, tmp_path: Path
) -> None:
    names = ("good.png", "bad.png", "fine.png")
    for name, data in zip(names, (picture(0), b"no picture", picture(1)), strict=True):
        (tmp_path / name).write_bytes(data)
    with serving.client() as client:
        files = [("images", (name, (tmp_path / name).read_bytes())) for name in names]
        answer = client.post("/v1/predict", files=files)
    assert answer.status_code == 200
    records = answer.json()["records"]
    assert [record["path"] for record in records] == [*names]
    assert records[1]["error"]["type"] == "ImageError"
    assert records[1]["error"]["message"].startswith("'bad.png' is not an image: it starts with")


def test_words_and_number_of_answers_can_be_asked_for(
    serving: Running, picture: Picture, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(picture(3))
    answer = ask(serving, tmp_path / "a.png", template="a sketch of a {}", top_k="1")
    words = ("--classes", ",".join(ANIMALS), "--template", "a sketch of a {}", "--top-k", 1)
    more = ("--views", 8, "--keep", 0.5, "--model", "tiny", "--device", "cpu")
    assert [answer] == predict_by_command(tmp_path / "a.png", *words, *more)
    both = {"template": ["a {}", "the {}"], "method": "zero_shot"}
    with serving.client() as client:
        files = {"images": ("a.png", picture(3))}
        ensemble = client.post("/v1/predict", files=files, data=both).json()["records"]
    words = ("--method", "zero_shot", "--template", "a {}", "--template", "the {}")
    more = ("--classes", ",".join(ANIMALS), "--model", "tiny", "--device", "cpu")
    assert ensemble == predict_by_command(tmp_path / "a.png", *words, *more)


def test_a_learned_start_is_used_unless_words_are_sent(
    start: Any, picture: Picture, tiny: Any, tmp_path: Path
) -> None:
    import tpt

    prompt, image = tmp_path / "prompt.safetensors", tmp_path / "a.png"
    context = tpt.Context.from_words(tiny, "a sketch of a")
    context.described(classes=("owl", "elk")).save(prompt)
    image.write_bytes(picture(0))
    running = start({"init": str(prompt), "classes": None, "model": None})
    words = ("--init", prompt, "--views", 4, "--keep", 0.5, "--device", "cpu")
    assert [ask(running, image)] == predict_by_command(image, *words)
    more = ("--classes", "owl,elk", "--template", "a {}", "--model", "tiny")
    assert [ask(running, image, template="a {}")] == predict_by_command(image, *more, *words[2:])
    told = running.get("/v1/model").json()
    assert (told["classes"], told["start"]["learned"]) == (["owl", "elk"], True)


def test_options_of_the_services_method_are_not_those_of_another(start: Any, picture: Any) -> None:
    running = start({"steps": 2, "gate": 0.5})
    for method in ("zero_shot", "vte", "mta", "zero", "tps", "ctpt", "zero-shot"):
        answer = running.predict(picture(0), method=method)
        assert answer.status_code == 200, answer.text


def test_details_hold_what_the_page_shows(serving: Running, picture: Picture) -> None:
    (record,) = serving.predict(picture(0), details="1").json()["records"]
    details = record["details"]
    assert details["zero_shot"][0]["score"] == record["zero_shot"]["score"]
    assert {one["label"] for one in details["zero_shot"]} == set(ANIMALS)
    assert details["views"] == 8
    assert len(details["kept"]) == record["adapt"]["views_kept"] == 4
    entropies = [view["entropy"] for view in details["kept"]]
    assert entropies == sorted(entropies)
    for one in (details["picture"], *(view["picture"] for view in details["kept"])):
        assert base64.b64decode(one).startswith(b"\xff\xd8")
    (plain,) = serving.predict(picture(0), details="1", method="zero_shot").json()["records"]
    assert (plain["details"]["kept"], plain["details"]["views"]) == ([], 1)


def test_the_task_of_hugging_face_is_answered(serving: Running, picture: Picture) -> None:
    labels = ["owl", "elk", "newt", "eel", "ant", "bee"]
    body = {
        "inputs": base64.b64encode(picture(0)).decode(),
        "parameters": {"candidate_labels": labels, "hypothesis_template": "a sketch of a {}."},
    }
    with serving.client() as client:
        answer = client.post("/v1/zero-shot-image-classification", json=body).json()
        same = serving.predict(
            picture(0), classes=labels, template="a sketch of a {}.", top_k="9"
        ).json()["records"][0]["predictions"]
        assert answer == [{"label": one["label"], "score": one["score"]} for one in same]
        assert sum(one["score"] for one in answer) == pytest.approx(1, abs=1e-5)
        body["inputs"] = "data:image/png;base64," + str(body["inputs"])
        assert client.post("/v1/zero-shot-image-classification", json=body).json() == answer
        del body["parameters"]
        short = client.post("/v1/zero-shot-image-classification", json=body).json()
        assert {one["label"] for one in short} == set(ANIMALS)


def test_a_method_that_votes_gives_shares_to_hugging_face(start: Any, picture: Picture) -> None:
    running = start({"method": "zero"})
    body = {"inputs": base64.b64encode(picture(0)).decode()}
    with running.client() as client:
        answer = client.post("/v1/zero-shot-image-classification", json=body).json()
    assert sum(one["score"] for one in answer) == pytest.approx(1)


def test_the_model_is_described(serving: Running) -> None:
    told = serving.get("/v1/model").json()
    assert (told["model"], told["classes"], told["method"]) == ("tiny", [*ANIMALS], "tpt")
    names = [method["name"] for method in told["methods"]]
    assert "zero_shot" in names
    assert "tda" not in names
    assert told["limits"]["queue"] == 64
    assert "token" not in told["limits"]


def test_the_calls_are_described(serving: Running) -> None:
    paths = serving.get("/openapi.json").json()["paths"]
    form = paths["/v1/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert set(form["schema"]["properties"]) == {
        *("images", "classes", "template", "method", "top_k", "details")
    }
    assert {"200", "413", "415", "422", "429", "503", "504"} <= {
        *paths["/v1/predict"]["post"]["responses"]
    }
    assert "/v1/zero-shot-image-classification" in paths
