"""Frames of a film come with their numbers, times and shots; a live film drops what is too fast."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from _films import make_film
from PIL import Image

import tpt
from tpt.errors import MethodError, SourceError
from tpt.streaming.items import Item, Sampling
from tpt.streaming.loading import load_item
from tpt.streaming.readers.cuts import CutFinder
from tpt.streaming.readers.video import read_every
from tpt.streaming.records import Failure, Prediction, Record
from tpt.streaming.smoothing import smooth
from tpt.streaming.subtitles import Cues, write_subtitles

IMAGES = Path(__file__).parents[2] / "examples" / "images"
EXAMPLES = [IMAGES / name for name in ("camera.jpg", "cat.jpg", "cup.jpg")]
FRAMES = 10  # a shot, at 10 a second


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    assert make_film(path, EXAMPLES, FRAMES, fps=10, size=(96, 80)) == [0, 10, 20]
    return str(path)


def test_frames_have_numbers_times_and_shots(film: str) -> None:
    items = list(tpt.video(film, frames=1))
    assert [item.frame for item in items] == list(range(30))
    assert [item.time for item in items] == pytest.approx([n / 10 for n in range(30)])
    assert [item.frame for item in items if item.begins] == [0, 10, 20]
    assert items[7].key == f"{film}#frame=7"
    loaded = load_item(0, items[12])
    assert loaded.picture is not None
    assert loaded.picture.pixels.shape == (80, 96, 3)
    with Image.open(EXAMPLES[1]) as image:
        expected = np.asarray(image.convert("RGB").resize((int(96 * 1.4), 80)), np.float32)
    left = int(96 * 0.4) * 2 // 9
    assert np.abs(loaded.picture.pixels - expected[:, left : left + 96]).mean() < 12


@pytest.mark.parametrize(
    ("ways", "taken"),
    [
        ({"every": 0.5}, [0, 5, 10, 15, 20, 25]),
        ({"every": 0.25}, [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28]),
        ({"frames": 7}, [0, 7, 14, 21, 28]),
        ({}, [0, 10, 20]),
    ],
)
def test_what_is_taken_is_right_to_the_frame(
    film: str, ways: dict[str, float], taken: list[int]
) -> None:
    items = list(tpt.video(film, **ways))  # type: ignore[arg-type]
    assert [item.frame for item in items] == taken
    shots = [item.frame // FRAMES for item in items if item.frame is not None and item.begins]
    assert shots == [0, 1, 2]  # a cut between two frames that are taken is told by the second


def test_key_frames_are_some_of_the_frames(film: str) -> None:
    items = list(tpt.video(film, keyframes=True))
    assert items[0].frame == 0
    assert 1 <= len(items) < 30


def test_a_film_is_read_from_an_open_file(film: str) -> None:
    items = list(tpt.video(io.BytesIO(Path(film).read_bytes()), frames=10))
    assert [item.key for item in items] == [f"film#frame={n}" for n in (0, 10, 20)]


@pytest.mark.parametrize("content", [b"no film", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", b""])
def test_what_is_no_film_is_an_error_record(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    (item,) = tpt.video(path)
    loaded = load_item(0, item)
    assert loaded.error is not None
    assert loaded.error.message.startswith(f"'{path}' cannot be decoded after 0 frames")


def test_what_is_whole_of_a_cut_off_film_is_there(tmp_path: Path) -> None:
    path = tmp_path / "film.ts"
    make_film(path, EXAMPLES, FRAMES, fps=10, size=(96, 80))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    items = list(tpt.video(path, frames=1))
    assert 5 < len(items) < 30
    assert [item.frame for item in items[:5]] == list(range(5))


def test_ways_to_sample_are_checked() -> None:
    for ways in ({"every": 1.0, "frames": 2}, {"every": 0.0}, {"frames": 0}):
        with pytest.raises(MethodError):
            Sampling(**ways)  # type: ignore[arg-type]
    assert read_every("0.5s") == read_every("0.5") == 0.5
    with pytest.raises(MethodError, match="number of seconds"):
        read_every("half")


def test_a_live_film_drops_frames_that_come_too_fast(film: str) -> None:
    live = tpt.video(io.BytesIO(Path(film).read_bytes()), live=True)
    items = []
    for item in live:
        items.append(item)
        time.sleep(0.05)  # the film is there at once
    assert live.dropped > 0
    assert len(items) + live.dropped == 30
    assert items[-1].frame == 29
    assert items[0].begins


def test_the_error_of_a_missing_package_names_the_extra(
    film: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(SourceError, match=r"'tpt-runtime\[video\]'"):
        list(tpt.video(film))


def test_noise_and_pans_are_no_cuts() -> None:
    random = np.random.RandomState(0)
    wide = np.asarray(Image.open(EXAMPLES[0]).convert("RGB").resize((160, 32)), np.int16)
    finder = CutFinder()
    told = []
    for left in range(0, 128, 2):
        noisy = wide[:, left : left + 32] + random.normal(0, 4, (32, 32, 3))
        told.append(finder.add(noisy.clip(0, 255).astype(np.uint8)))
    assert told == [True] + [False] * 63


# --- in a stream ---


def test_records_carry_the_frame_and_state_begins_anew_with_a_shot(
    film: str, tiny: tpt.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = tpt.TPT(tpt.PromptEngine(tiny, ["cat", "dog"]), keep=0.5, reset="stream")
    resets = []
    monkeypatch.setattr(method, "start_stream", lambda: resets.append(1))
    records = list(tpt.stream(tpt.video(film, every=0.5), method, tpt.Views(tiny, n=2)))
    assert [(r.frame, r.time, r.shot) for r in records] == [
        *((0, 0.0, 0), (5, 0.5, 0), (10, 1.0, 1), (15, 1.5, 1), (20, 2.0, 2), (25, 2.5, 2))
    ]
    assert len(resets) == 1 + 3  # the stream's own, and one a shot
    assert {"time": 0.5, "frame": 5, "shot": 0}.items() <= records[1].to_dict().items()


def frame(number: int, shot: int, *scores: float) -> Record:
    labels = ("cat", "dog -->", "<b>&")
    said = [Prediction(labels[i], score, i) for i, score in enumerate(scores)]
    said.sort(key=lambda each: -(each.score or 0))
    return Record(f"f#{number}", number, tuple(said), time=number / 2, frame=number, shot=shot)


def test_scores_are_averaged_over_the_last_frames_of_a_shot() -> None:
    records = [frame(0, 0, 0.8, 0.2), frame(1, 0, 0.4, 0.6), frame(2, 1, 0.1, 0.9)]
    bad = Record("f#3", 3, error=Failure("ImageError", "It is broken."), time=1.5, frame=3, shot=1)
    first, second, third, fourth = smooth([*records, bad], 2, 1)
    assert first.predictions[0].score == 0.8
    assert (second.predictions[0].label, second.predictions[0].score) == ("cat", pytest.approx(0.6))
    assert third.predictions == records[2].predictions[:1]
    assert fourth == bad


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_subtitles_merge_frames_of_one_label(tmp_path: Path, form: str) -> None:
    scores = [(0.9, 0.1, 0.0), (0.8, 0.2, 0.0), (0.1, 0.9, 0.0), (0.0, 0.0, 1.0)]
    records = [frame(n, 0, *each) for n, each in enumerate(scores)]
    path = tmp_path / f"x.{form}"
    with write_subtitles(str(path), form) as write:
        for record in records:
            write(record)
    head, dot = ("WEBVTT\n\n", ".") if form == "vtt" else ("", ",")
    dog, bold = ("dog --&gt;", "&lt;b&gt;&amp;") if form == "vtt" else ("dog ->", "<b>&")
    assert path.read_text() == (
        f"{head}1\n00:00:00{dot}000 --> 00:00:01{dot}000\ncat 90%\n\n"
        f"2\n00:00:01{dot}000 --> 00:00:01{dot}500\n{dog} 90%\n\n"
        f"3\n00:00:01{dot}500 --> 00:00:02{dot}000\n{bold} 100%\n\n"
    )


def test_subtitles_open_in_a_player_s_parser(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    for form in ("srt", "vtt"):
        path = tmp_path / f"x.{form}"
        with write_subtitles(str(path), form) as write:
            for number in range(4):
                write(frame(number, 0, 0.9 if number % 2 else 0.1, 0.5))
        with av.open(str(path)) as subtitles:
            packets = [p for p in subtitles.demux() if p.pts is not None and p.size]
        assert [float(p.pts * p.time_base) for p in packets] == [0.0, 0.5, 1.0, 1.5]


def test_pictures_without_a_time_make_no_subtitles() -> None:
    assert list(Cues("srt").add(Record("a.png", 0, (Prediction("cat", 0.5, 0),)))) == []
    assert not isinstance(frame(0, 0, 0.5), Item)
