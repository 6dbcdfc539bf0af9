"""Tars, Parquet files, addresses and data sets give their pictures lazily; damage is a record."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from listing import expand_sources
from PIL import Image

import tpt
from cli.predict import plan_rest
from tpt.errors import ImageError, SourceError
from tpt.streaming.folders import Search
from tpt.streaming.items import Item, Reading, fail_item, hold_bytes
from tpt.streaming.loading import load_item, own_item
from tpt.streaming.output import FinishedRecords
from tpt.streaming.readers import extras
from tpt.streaming.readers.parquet import iter_parquet
from tpt.streaming.readers.tars import iter_tar
from tpt.streaming.sources import Found, find_sources


def encode(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.RandomState(number).randint(0, 256, (8, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def make_tar(*names: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            data = encode(number) if name.endswith("png") else b"7"
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def read(item: Any) -> bytes:
    """The bytes of an item."""
    data: bytes = item.read().read()
    return data


def keys(items: Any) -> list[str]:
    return [item.key if isinstance(item, Item) else item for item in items]


# --- tars ---

NAMES = ("./a/1.png", "a/1.cls", "2.png", "._2.png", "2.json")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_tar_is_read_in_its_order_by_its_members_names(pack: Callable[[bytes], bytes]) -> None:
    items = list(iter_tar("x.tar", io.BytesIO(pack(make_tar(*NAMES)))))
    assert keys(items) == ["x.tar/a/1.png", "x.tar/2.png"]
    assert [read(item) for item in items] == [encode(0), encode(2)]


def test_a_name_that_an_archive_holds_twice_is_numbered() -> None:
    items = iter_tar("x.tar", io.BytesIO(make_tar("1.png", "1.png", "1.png")))
    assert keys(items) == ["x.tar/1.png", "x.tar/1.png#2", "x.tar/1.png#3"]


def damage(data: bytes, kind: str) -> bytes:
    whole = make_tar("1.png")[:-10240] or data[:1024]
    return {
        "cut": data[:1500],
        "no end": data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % 512),
        "overwritten": data[: len(whole)] + b"\xff" * 512 + data[len(whole) + 512 :],
        "no tar": b"junk" * 300,
        "empty": b"",
        "cut gzip": gzip.compress(data)[:300],
        "no pictures": make_tar("a.cls"),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["cut", "no end", "overwritten", "no tar", "empty", "cut gzip", "no pictures"]
)
def test_a_damaged_archive_is_one_error_record_behind_its_whole_pictures(kind: str) -> None:
    data = make_tar(*(f"{n}.png" for n in range(4)))
    *whole, last = iter_tar("x.tar", io.BytesIO(damage(data, kind)))
    assert [read(item) for item in whole] == [encode(n) for n in range(len(whole))]
    assert last.key == "x.tar"
    with pytest.raises(ImageError, match=r"^'x.tar' .* (Fetch it again|Check it)\.$"):
        last.read()


def test_braces_name_shards_that_must_exist(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        Path(f"s-00{number}.tar").write_bytes(make_tar("1.png"))
    assert keys(expand_sources(["s-{000..001}.tar"])) == ["s-000.tar/1.png", "s-001.tar/1.png"]
    assert keys(expand_sources(["*.tar"])) == ["s-000.tar/1.png", "s-001.tar/1.png"]
    with pytest.raises(SourceError, match=r"'s-002\.tar' does not exist"):
        expand_sources(["s-{000..002}.tar"])
    with pytest.raises(SourceError, match="names no shards"):
        expand_sources(["s-{2..1}.tar"])


# --- Parquet ---


def write_table(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.mark.parametrize("kind", ["bytes", "struct"])
def test_rows_of_bytes_are_named_by_their_number(tmp_path: Path, kind: str) -> None:
    cells = [encode(0), None, encode(1), b""]
    image: Any = [{"bytes": c, "path": None} for c in cells] if kind == "struct" else cells
    path = write_table(tmp_path / "t.parquet", id=[1, 2, 3, 4], blob=image)
    items = list(iter_parquet(path))
    assert keys(items) == [f"{path}#{n}" for n in range(4)]
    assert [read(items[0]), read(items[2])] == [encode(0), encode(1)]  # type: ignore[arg-type]
    for row in (1, 3):
        loaded = load_item(row, items[row])
        assert loaded.error is not None
        assert loaded.error.type == "ImageError"
        assert 'its column "blob" is NULL or empty' in loaded.error.message


def test_a_column_of_paths_gives_paths(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", image=["a.png", "b.png"], text=["x", "y"])
    assert list(iter_parquet(path)) == ["a.png", "b.png"]
    found = find_sources([path], Search(reading=Reading("text")))
    assert list(found) == ["x", "y"]
    assert not found.is_counted


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("imag", 'column "imag" .* is not there: expected one of id, a, b. Did'),
        ("id", 'column "id" .* holds neither bytes nor paths'),
        (None, "Name it with --column"),
    ],
)
def test_a_column_that_cannot_be_meant_is_refused_at_once(
    tmp_path: Path, column: str | None, told: str
) -> None:
    path = write_table(tmp_path / "t.parquet", id=[1], a=[b"1"], b=[b"1"])
    with pytest.raises(SourceError, match=told.replace(" Did", "")):
        find_sources([path], Search(reading=Reading(column)))


def test_a_broken_parquet_file_is_an_error_record(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1 no table PAR1")
    (item,) = find_sources([str(path)], Search())
    loaded = load_item(0, item)
    assert loaded.path == str(path)
    assert loaded.error is not None
    assert "cannot be read from row 0 on" in loaded.error.message


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SourceError, match=r"needs the package pyarrow.*'tpt-runtime\[parquet\]'"):
        extras.import_extra("pyarrow.parquet", "parquet", "A Parquet file")


# --- addresses ---


@pytest.fixture
def bucket() -> Iterator[Any]:
    system = pytest.importorskip("fsspec").filesystem("memory")
    for name in ("10.png", "2.png", "sub/3.png", "x.txt"):
        system.pipe(f"/bucket/{name}", encode(len(name)))
    system.pipe("/shards/0.tar", make_tar("1.png"))
    system.pipe("/broken/0.tar", b"junk" * 200)
    yield system
    system.store.clear()


def test_an_address_is_a_picture_a_folder_a_pattern_or_a_shard(bucket: Any) -> None:
    base = "memory://bucket"
    (item,) = expand_sources([f"{base}/2.png"])
    assert read(item) == encode(5)
    assert keys(expand_sources([base])) == ["memory:///bucket/2.png", "memory:///bucket/10.png"]
    assert len(expand_sources([base], recursive=True)) == 3
    assert keys(expand_sources([f"{base}/*/*.png"])) == ["memory:///bucket/sub/3.png"]
    found = expand_sources(["memory://shards/{0..1}.tar"])
    assert keys(found) == ["memory://shards/0.tar/1.png", "memory://shards/1.tar"]


def test_what_cannot_be_read_at_an_address_is_a_record(bucket: Any) -> None:
    for address, told in (
        ("memory://bucket/gone.png", "cannot be read (FileNotFoundError"),
        ("memory://broken/0.tar", "is cut off or damaged"),
        ("memory://gone/{1..1}.tar", "cannot be read (FileNotFoundError"),
    ):
        (item,) = expand_sources([address])
        loaded = load_item(0, item)
        assert loaded.error is not None
        assert told in loaded.error.message
    with pytest.raises(SourceError, match="holds no pictures"):
        expand_sources(["memory://bucket/*.jpg"])


# --- data sets ---


def test_rows_of_a_data_set_are_read_undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    Kind = type("Image", (), {"__init__": lambda self, decode=True: None})  # noqa: N806

    class Dataset(list[dict[str, Any]]):
        features = {"label": 1, "photo": Kind()}  # noqa: RUF012

        def cast_column(self, column: str, kind: Any) -> Dataset:
            return Dataset({**row, column: {"bytes": row[column], "path": None}} for row in self)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(Image=Kind))
    data = Dataset([{"photo": encode(0)}, {"photo": None}])
    items = list(tpt.rows(data, name="beans"))
    assert keys(items) == ["beans#0", "beans#1"]
    assert read(items[0]) == encode(0)
    assert load_item(1, items[1]).error is not None
    assert load_item(0, next(tpt.rows([{"x": Image.new("RGB", (4, 4))}], "x"))).error is None
    with pytest.raises(SourceError, match='no column "image"'):
        tpt.rows(data, "image")
    with pytest.raises(SourceError, match=r"Name it: tpt\.rows"):
        tpt.rows([{}])


# --- through a stream and the command ---


def test_views_come_from_the_bytes_wherever_they_lie(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    path.write_bytes(encode(0))
    (member,) = iter_tar("x.tar", io.BytesIO(make_tar("1.png")))
    digests = {load_item(0, item).picture.digest for item in (str(path), member)}  # type: ignore[union-attr]
    assert len(digests) == 1
    assert own_item(member) is member


@pytest.mark.parametrize("size", [1, 3])
def test_a_resumed_run_starts_at_a_batch_s_border(size: int) -> None:
    items = [hold_bytes(str(n), b"") for n in range(7)]
    for done in range(7):
        finished = FinishedRecords(frozenset(keys(items[:done])), 0)
        rest, again = plan_rest(Found([iter(items)]), finished, size)
        assert again == done % size
        assert keys(rest) == keys(items[done - again :])
    assert list(plan_rest(Found([items]), FinishedRecords(frozenset(keys(items)), 0), 3)[0]) == []


def test_a_stream_of_many_rows_holds_few_of_them(tmp_path: Path) -> None:
    path = tmp_path / "many.parquet"
    picture = encode(0)
    with pq.ParquetWriter(path, pa.schema([("image", pa.binary())])) as writer:
        for _ in range(10):
            writer.write_table(pa.table({"image": [picture] * 1000}))
    before = pa.total_allocated_bytes()
    most = count = 0
    for item in iter_parquet(str(path)):
        assert isinstance(item, Item)
        count += 1
        if count % 100 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    assert count == 10_000
    assert most < 4 * 2**20


def test_the_error_of_an_item_is_its_message() -> None:
    loaded = load_item(3, fail_item("k", "It is gone."))
    assert (loaded.path, loaded.error and loaded.error.message) == ("k", "It is gone.")
    broken = load_item(4, hold_bytes("x.tar/1.png", b"no picture"))
    assert broken.error is not None
    assert broken.error.message.startswith("'x.tar/1.png' is not an image")
