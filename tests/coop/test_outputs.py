"""A job's files have names of their own, and what an earlier start left is taken up or refused."""

from __future__ import annotations

import csv
import errno
import json
import os
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import tpt
from coop.features import FeatureBank
from coop.loop import State
from coop.outputs import (
    Outputs,
    check_outputs,
    claim_outputs,
    load_state,
    open_log,
    run_digest,
    save_state,
    take_up,
    write_files,
)
from coop.recipes import RecipeSettings
from coop.sampling import draw_shots
from coop.train_job import TrainJob, TrainSettings
from tpt.data.labelled_sets import Sample
from tpt.data.training_sets import TrainingSet
from tpt.errors import OutputError

OUTPUTS = Outputs(Path("p.safetensors"), many=False)
STATE = State(3, {"vectors": torch.arange(8.0)}, {"vectors": torch.ones(8)})


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def job(tiny: tpt.Clip) -> TrainJob:
    """A job whose pictures need not be there."""
    names = ["a,b.png", 'say "x".png', "猫.png", os.fsdecode(b"latin-\xe9.png"), "new\nline.png"]
    items = tuple(Sample.of_file(f"{k}/{name}", k) for k in (0, 1) for name in names)
    dataset = TrainingSet("pets", ("cat", "dog, wild"), items)
    return TrainJob(TrainSettings("pets", shots=(2,)), tiny, dataset, FeatureBank(tiny), ("a {}.",))


def check(outputs: Outputs = OUTPUTS, *runs: tuple[int | None, int], **options: bool) -> None:
    wanted = {"probe": False, "resume": False, "overwrite": False, **options}
    check_outputs(outputs, runs or [(16, 1)], **wanted)


def write_log(job: TrainJob, *more: str, path: str = "p.jsonl") -> bytes:
    start = json.dumps({"event": "start", "settings": job.describe()}) + "\n"
    Path(path).write_bytes((start + "".join(more)).encode())
    return Path(path).read_bytes()


# --- names ---


def test_one_run_has_the_name_that_was_asked_for() -> None:
    assert OUTPUTS.prompt(16, 1) == Path("p.safetensors")
    assert OUTPUTS.last_good(16, 1) == Path("p.last-good.safetensors")


def test_of_several_runs_each_has_a_name_of_its_own() -> None:
    many = Outputs(Path("a/b.v2.pt"), many=True)
    assert many.prompt(16, 1) == Path("a/b.v2-16shot-seed1.pt")
    assert many.prompt(None, 3) == Path("a/b.v2-allshot-seed3.pt")
    assert many.last_good(None, 3) == Path("a/b.v2-allshot-seed3.last-good.pt")


def test_the_other_files_stand_beside_and_no_two_are_one() -> None:
    outputs = Outputs(Path("a/b.v2.safetensors"), many=True)
    runs = [(shots, seed) for shots in (1, None) for seed in (1, 2)]
    names = [
        *(outputs.prompt(*run) for run in runs),
        *(outputs.last_good(*run) for run in runs),
        *(outputs.log, outputs.card, outputs.state, outputs.files),
        *(outputs.curve_csv, outputs.curve_png),
    ]
    assert len(set(names)) == len(names)
    assert {name.parent for name in names} == {Path("a")}
    assert all(name.name.startswith("b.v2") for name in names)
    assert outputs.log == Path("a/b.v2.jsonl")


def test_the_log_alone_may_lie_elsewhere() -> None:
    outputs = Outputs(Path("p.pt"), many=False, log_path=Path("logs/x"))
    assert outputs.log == Path("logs/x")
    assert outputs.card == Path("p.md")


# --- what may be written where ---


@pytest.mark.parametrize(
    "name", ["p.txt", "p", "p.safetensors.gz", ".safetensors", "p.PT", "p.bin"]
)
def test_a_prompt_has_one_of_two_suffixes(name: str) -> None:
    with pytest.raises(OutputError, match=r"--output ends in \.safetensors or .pt, but"):
        check(replace(OUTPUTS, path=Path(name)))


def test_a_linear_probe_has_one_suffix() -> None:
    check(probe=True)
    with pytest.raises(OutputError, match=r'--output ends in .safetensors, but "p.pt" does not'):
        check(replace(OUTPUTS, path=Path("p.pt")), probe=True)


def test_the_folder_has_to_be_there() -> None:
    with pytest.raises(OutputError, match='The folder "a/b" of --output does not exist'):
        check(Outputs(Path("a/b/p.pt"), many=False), resume=True)


@pytest.mark.parametrize("name", ["p.safetensors", "p.jsonl", "p.md", "p.files.csv"])
def test_a_file_that_is_there_needs_a_word(name: str) -> None:
    Path(name).touch()
    with pytest.raises(OutputError, match=f'"{name}" exists already. Use --resume .* --overwrite'):
        check()
    check(overwrite=True)


def test_only_the_files_that_will_be_made_count() -> None:
    for name in ("p.curve.csv", "p.curve.png", "p-1shot-seed2.safetensors", "p.last-good.pt"):
        Path(name).touch()
    check()
    many = replace(OUTPUTS, many=True)
    check(many, (1, 1), (1, 3))
    for runs in ([(1, 1), (2, 1)], [(1, 1), (1, 2)]):
        with pytest.raises(OutputError, match="exists already"):
            check(many, *runs)


@pytest.mark.parametrize(
    "name", ["p.safetensors", "p.md", "p.files.csv", "p.state.safetensors", "./p.md"]
)
def test_the_log_has_a_place_of_its_own(name: str) -> None:
    with pytest.raises(OutputError, match="is where another file of this training goes"):
        check(replace(OUTPUTS, log_path=Path(name)), overwrite=True)


@pytest.mark.parametrize("word", ["resume", "overwrite"])
@pytest.mark.parametrize("name", ["p.safetensors", "p.jsonl", "p.md"])
def test_a_folder_is_never_written_over(name: str, word: str) -> None:
    Path(name).mkdir()
    with pytest.raises(OutputError, match=f'"{name}" is a folder, not a file.'):
        check(**{word: True})


def test_resume_and_overwrite_contradict_each_other() -> None:
    with pytest.raises(OutputError, match="Give one of them"):
        check(resume=True, overwrite=True)


def test_a_prompt_is_gone_on_with_only_by_its_log() -> None:
    check(resume=True)  # nothing there: it is begun
    Path("p.safetensors").touch()
    with pytest.raises(OutputError, match=r'"p\.safetensors" exists, but not its log "p\.jsonl"'):
        check(resume=True)
    Path("p.jsonl").touch()
    check(resume=True)


@pytest.mark.parametrize("resume", [True, False])
def test_two_trainings_never_write_the_same_outputs(resume: bool) -> None:
    def claim() -> AbstractContextManager[None]:
        return claim_outputs(OUTPUTS, [(16, 1)], probe=False, resume=resume, overwrite=not resume)

    second = claim()
    told = r'Another run writes to "p\.safetensors": process '
    with claim(), pytest.raises(OutputError, match=told), second:
        pass
    assert os.listdir() == []


# --- the log ---


def test_every_event_is_on_the_disk_as_soon_as_it_is_written() -> None:
    with open_log(Path("log"), append=False) as log:
        for number in range(3):
            log({"event": "epoch", "number": number, "name": "猫\n"})
            last = json.loads(Path("log").read_bytes().splitlines()[-1])
            assert last == {"event": "epoch", "number": number, "name": "猫\n"}
    assert Path("log").read_bytes().count(b"\n") == 3


@pytest.mark.parametrize(("append", "left"), [(True, 2), (False, 1)])
def test_a_log_is_gone_on_with_or_begun_again(append: bool, left: int) -> None:
    for again in (False, append):
        with open_log(Path("log"), append=again) as log:
            log({"event": "start"})
    assert Path("log").read_bytes().count(b"\n") == left


def test_a_log_that_cannot_be_opened_is_a_sentence() -> None:
    log = open_log(Path("a/log"), append=False)
    with pytest.raises(OutputError, match='The log "a/log" could not be written: No such file'):
        log.__enter__()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_under_the_log_is_a_sentence() -> None:
    told = r"No space left on device.*go on with --resume"
    with pytest.raises(OutputError, match=told), open_log(Path("/dev/full"), append=False) as log:
        log({"event": "start"})


@pytest.mark.parametrize(
    ("rest", "mended"),
    [
        (b"", b""),
        (b'{"event": "ep', b""),
        (b'{"event": "epoch"}', b'{"event": "epoch"}\n'),
        (b"\xff", b""),
        (b"\n", b"\n"),
    ],
)
def test_a_broken_last_line_is_cut_off_and_a_whole_one_ended(
    job: TrainJob, rest: bytes, mended: bytes
) -> None:
    start = write_log(job)
    Path("p.jsonl").write_bytes(start + rest)
    events = take_up(job, OUTPUTS)
    assert Path("p.jsonl").read_bytes() == start + mended
    assert take_up(job, OUTPUTS) == events
    assert len(events) == 1 + (b"epoch" in mended)


def test_lines_that_are_no_events_are_passed_over(job: TrainJob) -> None:
    start = write_log(job)
    Path("p.jsonl").write_bytes(start + b'7\n[1]\n{"a": 1}\n\n\xff\n{"event": "run"}\n')
    assert take_up(job, OUTPUTS)[1:] == [{"event": "run"}]


# --- taking up ---


def test_where_there_is_no_log_there_is_nothing_to_take_up(job: TrainJob) -> None:
    assert take_up(job, OUTPUTS) == []


def test_the_events_of_the_same_job_are_taken_up(job: TrainJob) -> None:
    before = write_log(job, '{"event": "epoch"}\n', '{"event": "r')
    assert [event["event"] for event in take_up(job, OUTPUTS)] == ["start", "epoch"]
    assert Path("p.jsonl").read_bytes() == before[: before.rindex(b"\n") + 1]


def test_a_log_cut_in_its_first_line_is_begun_again_at_any_byte(job: TrainJob) -> None:
    whole = write_log(job)
    for size in range(len(whole) - 1):
        Path("p.jsonl").write_bytes(whole[:size])
        assert take_up(job, OUTPUTS) == [], size
    Path("p.jsonl").write_bytes(whole[:-1])  # all but its end
    assert len(take_up(job, OUTPUTS)) == 1
    assert Path("p.jsonl").read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"hello\n",
        b'{"path": "a.png"}\n',
        b'{"event": "run"}\n',
        b'{"event": "start", "settings": 7}\n',
        b'{"event": "start"\n',
        b"\n",
        b"\xff\xfe",
    ],
)
def test_what_is_no_log_of_a_training_is_refused_and_left_alone(
    job: TrainJob, content: bytes
) -> None:
    Path("p.jsonl").write_bytes(content)
    with pytest.raises(OutputError, match=r'"p\.jsonl" is not the log of a training.*--overwrite'):
        take_up(job, OUTPUTS)
    assert Path("p.jsonl").read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shots": (4,)}, r'\(shots; shots was \["2"\], now \["4"\]\)'),
        ({"shots": (None,), "seeds": (7,)}, r"\(seeds, shots; "),
        ({"recipe": RecipeSettings("kgcoop")}, r'\(recipe method; recipe method was "coop", now'),
    ],
)
def test_another_job_is_refused_by_what_changed(
    job: TrainJob, changes: dict[str, Any], words: str
) -> None:
    before = write_log(job, '{"event": "ep')
    other = replace(job, settings=replace(job.settings, **changes))
    with pytest.raises(OutputError, match=f'"p.safetensors" was begun with other .*{words}'):
        take_up(other, OUTPUTS)
    assert Path("p.jsonl").read_bytes() == before


# --- the state ---


def test_a_state_comes_back_whole_for_its_own_run_alone(job: TrainJob) -> None:
    assert load_state(OUTPUTS, job, 2, 1) is None
    save_state(OUTPUTS, job, 2, 1, STATE)
    back = load_state(OUTPUTS, job, 2, 1)
    assert back is not None
    assert back.epoch == 3
    assert torch.equal(back.parameters["vectors"], STATE.parameters["vectors"])
    assert torch.equal(back.momentum["vectors"], STATE.momentum["vectors"])
    assert load_state(OUTPUTS, job, 2, 2) is None
    assert load_state(OUTPUTS, job, None, 1) is None
    other = replace(job, settings=replace(job.settings, precision="bf16"))
    assert load_state(OUTPUTS, other, 2, 1) is None


def test_names_with_dots_and_scalars_and_views_come_back(job: TrainJob) -> None:
    parameters = {
        "meta_net.linear1.weight": torch.arange(6.0).reshape(2, 3).T,
        "log_temperature": torch.tensor(0.07),
    }
    save_state(OUTPUTS, job, 2, 1, State(1, parameters))
    back = load_state(OUTPUTS, job, 2, 1)
    assert back is not None
    assert back.momentum == {}
    assert back.parameters.keys() == parameters.keys()
    assert all(torch.equal(back.parameters[name], value) for name, value in parameters.items())


@pytest.mark.parametrize("content", [b"", b"no state", b"\0" * 64])
def test_a_damaged_state_is_none(job: TrainJob, content: bytes) -> None:
    OUTPUTS.state.write_bytes(content)
    assert load_state(OUTPUTS, job, 2, 1) is None


def test_another_file_in_the_states_place_is_none(job: TrainJob) -> None:
    safetensors.torch.save_file({"vectors": torch.ones(2)}, OUTPUTS.state)
    assert load_state(OUTPUTS, job, 2, 1) is None
    OUTPUTS.state.unlink()
    OUTPUTS.state.mkdir()
    assert load_state(OUTPUTS, job, 2, 1) is None


def test_a_state_that_finds_no_room_leaves_the_one_before(
    job: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(OUTPUTS, job, 2, 1, STATE)

    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(
        OutputError, match=r"The state of the training could not be saved .*No space"
    ):
        save_state(OUTPUTS, job, 2, 1, replace(STATE, epoch=4))
    back = load_state(OUTPUTS, job, 2, 1)
    assert back is not None
    assert back.epoch == 3
    assert os.listdir() == [OUTPUTS.state.name]


def test_a_device_and_workers_make_no_other_run(job: TrainJob) -> None:
    elsewhere = replace(job.settings, device="cuda:1", num_workers=7)
    assert run_digest(job, 2, 1) == run_digest(replace(job, settings=elsewhere), 2, 1)
    assert run_digest(job, 2, 1) != run_digest(job, 1, 2)


# --- the list of pictures ---


def test_the_list_gives_every_picture_of_every_run_back_whatever_its_name(job: TrainJob) -> None:
    job = replace(job, settings=replace(job.settings, shots=(2, None), seeds=(3,)))
    write_files(job, OUTPUTS)
    with open("p.files.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        head, *rows = list(csv.reader(file))
    assert head == ["shots", "seed", "split", "path", "label"]
    wanted = []
    for shots, seed in job.settings.runs:
        draw = draw_shots(job.dataset, shots, seed)
        for split, items in (("train", draw.train), ("val", draw.val)):
            name = "all" if shots is None else str(shots)
            for item in items:
                label = job.dataset.classes[item.label]
                wanted.append([name, str(seed), split, item.path, label])
    assert rows == wanted
    assert sum(row[0] == "all" for row in rows) == len(job.dataset.train)
