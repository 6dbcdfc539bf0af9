"""What runs on a cluster, tried without one: sharing, reading, predicting, the size of the pool."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import tpt
from cli.main import main
from tpt.errors import MethodError, SourceError
from tpt.scale.cluster import Pool, connect, read_pool
from tpt.scale.predictor import Predictor, Prepared
from tpt.scale.reading import digest_keys, make_units, read_unit, unfold
from tpt.scale.sharing import join, split
from tpt.streaming.folders import Search
from tpt.streaming.items import Reading
from tpt.streaming.predict_settings import PredictSettings
from tpt.streaming.sources import find_sources

pytest.importorskip("ray")


def encode(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.RandomState(number).randint(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three pictures and two broken ones, and a tar of two."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for number in range(3):
        Path(f"in/{number}.png").write_bytes(encode(number))
    Path("in/bad.png").write_text("no picture")
    Path("in/latin-\udce9.png").write_bytes(encode(7))
    with tarfile.open("s.tar", "w") as archive:
        archive.add("in/0.png", "0.png")
        archive.add("in/1.png", "1.png")
    return tmp_path


def test_an_object_s_tensors_lie_on_the_shared_arrays() -> None:
    layer = torch.nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
    layer.half = torch.ones(2, 3, dtype=torch.bfloat16).t()  # type: ignore[assignment]
    layer.none = torch.zeros(())  # type: ignore[assignment]
    layer.again = layer.weight  # type: ignore[assignment]
    shared = split({"layer": layer, "name": "x"})
    for array in shared.arrays:
        array.flags.writeable = False  # as the object store's are
    back = join(shared)["layer"]
    for name in ("weight", "bias", "half", "none"):
        before, after = getattr(layer, name), getattr(back, name)
        assert torch.equal(before, after), name
        assert (before.dtype, before.stride()) == (after.dtype, after.stride()), name
    assert back.again is back.weight
    assert isinstance(back.weight, torch.nn.Parameter)
    places = {array.ctypes.data for array in shared.arrays}
    assert back.weight.data_ptr() in places


def read_all(sources: list[str], done: set[str]) -> list[dict[str, Any]]:
    units = make_units(find_sources(sources, Search()), done)
    digests = digest_keys(done)
    groups = [
        group
        for unit in units
        for group in read_unit(pa.table({"names": [unit["names"]]}), Reading(), digests, most=2)
    ]
    assert all(len(group) == 1 and len(unfold(group)) <= 2 for group in groups)
    return [row for group in groups for row in unfold(group).to_pylist()]


def test_units_are_read_as_rows_without_what_is_done(source: Path) -> None:
    rows = read_all(["s.tar", "in"], {"s.tar/0.png", "in/1.png"})
    assert [os.fsdecode(row["path"]) for row in rows] == [
        *("s.tar/1.png", "in/0.png", "in/2.png", "in/bad.png", "in/latin-\udce9.png")
    ]
    assert rows[0]["bytes"] == encode(1)
    assert [bool(row["error"]) for row in rows] == [False, False, False, True, False]


def test_an_actor_s_records_are_those_of_a_stream(source: Path, tiny: tpt.Clip) -> None:
    wanted = PredictSettings(classes=("cat", "dog"), model="tiny", views=2, device="cpu")
    weights = split((tiny.model, tiny.tokenizer))
    prepared = Prepared(wanted, None, weights, (tiny.name, tiny.pretrained, tiny.digest))
    threads = torch.get_num_threads()
    predictor = Predictor(prepared, device="cpu")
    torch.set_num_threads(threads)
    rows = read_all(["in"], set())
    table = predictor(pa.Table.from_pylist(rows))
    method, views = predictor.job.method, tpt.Views(tiny, n=2)
    names = [os.fsdecode(row["path"]) for row in rows]
    found = [json.loads(line) for line in table.column("record").to_pylist()]
    expected = [record.to_dict() for record in tpt.stream(names, method, views)]
    for record in [*found, *expected]:
        record.get("adapt", {}).pop("ms", None)
    assert found == expected
    assert "error" in found[3]
    columns = predictor({"bytes": [encode(0), None], "id": [7, 8]})
    assert columns["id"] == [7, 8]
    assert columns["label"][0] == found[0]["predictions"][0]["label"]
    assert "has no picture" in columns["error"][1]


def test_actors_do_not_build_a_jacobian_each() -> None:
    wanted = PredictSettings(classes=("cat", "dog"), model="tiny", jacobian=True)
    with pytest.raises(MethodError, match="Each actor would have to build"):
        Predictor.prepare(wanted)


def test_the_pool_fills_the_cluster_and_no_more_than_there_is_work() -> None:
    there = {"CPU": 8.0, "GPU": 2.0}
    assert Pool(gpus=0).fit(there, 99) == Pool(8, 8, 1, 0)
    assert Pool().fit(there, 99) == Pool(2, 2, 1, 1.0)
    assert Pool(gpus=0.5).fit(there, 99) == Pool(4, 4, 1, 0.5)
    assert Pool(1, 16, 4).fit({"CPU": 8.0}, 99) == Pool(1, 16, 4, 0.0)
    assert Pool().fit({"CPU": 8.0}, 3) == Pool(3, 3, 1, 0.0)
    assert read_pool("2:8", 1, None) == Pool(2, 8)
    assert read_pool("3", 2, 0.5) == Pool(3, 3, 2, 0.5)
    for text in ("x", "0", "4:2", "2:"):
        with pytest.raises(MethodError):
            read_pool(text, 1, None)
    with pytest.raises(MethodError):
        Pool(cpus=-1)


def test_ray_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(SourceError, match=r"needs the package ray.*'tpt-runtime\[scale\]'"),
        connect("local"),
    ):
        pass


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--strict"], "--strict has no meaning with --ray"),
        (["--format", "csv"], "Leave --format out"),
        (["--actors", "x"], "--actors is a number or MIN:MAX"),
        ([], "Give --output FOLDER"),
    ],
)
def test_the_command_refuses_what_a_cluster_cannot_do(
    more: list[str], told: str, source: Path
) -> None:
    words = ["predict", "in", "--classes", "a,b", "--ray", "local", *more]
    result: Result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
