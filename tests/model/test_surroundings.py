"""Whatever modes, threads and processes a caller has around: the numbers are those of the model."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import tpt
from tpt.errors import ModelError
from tpt.model import surroundings
from tpt.model.surroundings import Lock, check_process, steady

NAMES = ["cat", "dog", "cup"]
PICTURES = torch.randint(0, 256, (2, 3, 80, 70), generator=torch.Generator().manual_seed(0)).byte()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES: dict[str, Callable[[], Any]] = {
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "meta": lambda: torch.device("meta"),
}


def answer(method: tpt.TPT, views: tpt.Views) -> Tensor:
    return method.adapt(views(list(PICTURES))).logits.clone()


def build(clip: tpt.Clip, kind: type = tpt.TPT) -> tuple[Any, tpt.Views]:
    blend = tpt.prompts.context.Blend(("a sketch of a {}.",), 0.7)
    start = tpt.Context.from_words(clip, "a photo of a")
    context = tpt.Context(start.vectors, blend=blend)
    return kind(tpt.PromptEngine(clip, NAMES, context)), tpt.Views(clip, n=6)


@pytest.mark.parametrize("kind", [tpt.TPT, tpt.CTPT, tpt.TPS, tpt.TDA, tpt.MTA, tpt.ZERO])
@pytest.mark.parametrize("mode", MODES)
def test_neither_the_first_use_nor_what_is_kept_depends_on_the_callers_modes(
    tiny: tpt.Clip, mode: str, kind: type
) -> None:
    want = answer(*build(tiny, kind))
    with MODES[mode]():
        method, views = build(tiny, kind)
        inside = answer(method, views)
    method.reset()
    # Under another default dtype or device torch's attention leaves its fused path: a last digit.
    torch.testing.assert_close(inside, want, rtol=1e-5, atol=1e-5)
    assert torch.equal(answer(method, views), want)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", ["packed", "full"])
def test_class_features_are_the_same_in_every_mode(tiny: tpt.Clip, mode: str, path: str) -> None:
    want = tpt.PromptEngine(tiny, NAMES, path=path).class_features()
    with MODES[mode]():
        engine = tpt.PromptEngine(tiny, NAMES, path=path)
        inside = engine.class_features().clone()
        templates = engine.template_features(["a drawing of a {}."])
    assert torch.equal(inside, want)
    assert torch.equal(engine.class_features(), want)
    vectors = engine.start.requires_grad_()
    engine.class_features(vectors).sum().backward()  # nothing was made for inference alone
    assert vectors.grad is not None
    assert torch.equal(templates, engine.template_features(["a drawing of a {}."]))


@pytest.mark.parametrize("pretrained", [None, "random"])
@pytest.mark.parametrize("mode", MODES)
def test_a_model_is_loaded_the_same_in_every_mode(
    tiny: tpt.Clip, mode: str, pretrained: str | None
) -> None:
    want = tpt.load_clip("tiny", pretrained, device="cpu")
    with MODES[mode]():
        clip = tpt.load_clip("tiny", pretrained, device="cpu")
    assert clip.digest == want.digest
    for name, value in want.model.state_dict().items():
        assert torch.equal(clip.model.state_dict()[name], value), name
    method, views = build(clip)
    assert torch.equal(answer(method, views), answer(*build(want)))


def test_a_model_object_made_in_inference_mode_can_be_tuned_through(tiny: tpt.Clip) -> None:
    with torch.inference_mode():
        model = copy.deepcopy(tiny.model)
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        clip = tpt.Clip(model, tiny.tokenizer)
    assert torch.equal(answer(*build(clip)), answer(*build(tiny)))


def test_loading_switches_nothing_of_the_process() -> None:
    root = logging.getLogger()
    before = (list(root.handlers), list(root.filters), torch.random.get_rng_state())
    seen = []

    def watch(stop: threading.Event) -> None:
        while not stop.wait(0.001):
            quiet = any(logging.getLogger(name).filters for name in (None, "huggingface_hub"))
            seen.append((quiet, torch.random.get_rng_state()))

    stop = threading.Event()
    thread = threading.Thread(target=watch, args=(stop,))
    thread.start()
    tpt.load_clip("tiny", "random", seed=5, device="cpu")
    stop.set()
    thread.join()
    assert not any(quiet for quiet, _ in seen)
    assert all(torch.equal(state, before[2]) for _, state in seen)
    assert (root.handlers, root.filters) == before[:2]


def test_nothing_is_entered_where_the_caller_has_set_nothing() -> None:
    with steady():
        assert torch.overrides._get_current_function_mode_stack() == []


# --- threads ---


@pytest.mark.parametrize("path", ["packed", "full"])
def test_engines_on_one_model_do_not_see_each_other(tiny: tpt.Clip, path: str) -> None:
    words = ["a photo of a", "a rough sketch of"]
    engines = [
        tpt.PromptEngine(tiny, NAMES[:count], tpt.Context.from_words(tiny, text), path=path)
        for text in words
        for count in (2, 3)
    ]
    want = [engine.class_features().detach() for engine in engines]
    wrong: list[object] = []

    def work(engine: tpt.PromptEngine, alone: Tensor) -> None:
        for _ in range(8):
            try:
                if not torch.allclose(engine.class_features().detach(), alone, atol=1e-5):
                    wrong.append("numbers")
            except Exception as error:
                wrong.append(error)

    run_together([lambda e=e, w=w: work(e, w) for e, w in zip(engines, want, strict=True)])
    assert wrong == []


def test_nothing_is_left_on_the_model(tiny: tpt.Clip) -> None:
    tpt.PromptEngine(tiny, NAMES, path="full").class_features()
    assert not tiny.text.token_embedding._forward_hooks


def run_together(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_what_an_engine_keeps_is_computed_once_for_all_threads(
    tiny: tpt.Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tpt.PromptEngine(tiny, NAMES)
    encode, calls = engine._encode, []

    def count(vectors: Tensor) -> Tensor:
        calls.append(1)
        return encode(vectors)

    monkeypatch.setattr(engine, "_encode", count)
    graphs: list[Any] = []
    run_together([lambda: graphs.append(engine.start_graph())] * 6)
    assert len(calls) == 1
    assert len({id(graph[1]) for graph in graphs}) == 1


# --- processes ---


def test_a_fork_that_would_hang_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "_home", os.getpid() + 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(ModelError, match=r'"spawn" or "forkserver".*torch\.set_num_threads\(1\)'):
        tpt.load_clip("tiny")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    check_process()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_process_answers_or_says_what_to_do(tiny: tpt.Clip, threads: int) -> None:
    method, views = build(tiny)
    want = answer(method, views)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def child() -> None:
        monkey = pytest.MonkeyPatch()
        monkey.setattr(torch, "get_num_threads", lambda: threads)
        try:
            queue.put(answer(method, views).tolist())
        except ModelError as error:
            queue.put(str(error))

    process = context.Process(target=child)
    process.start()
    got = queue.get(timeout=60)
    process.join()
    if threads == 1:
        torch.testing.assert_close(torch.tensor(got), want)
    else:
        assert "was forked from one" in got


# --- copies ---


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_of_a_lock_is_a_lock_of_its_own(copied: Callable[[Lock], Lock]) -> None:
    lock = Lock()
    assert lock.take()
    other = copied(lock)
    assert other.take()
    assert not lock.take()
    lock.free()
    with ExitStack() as stack:
        stack.enter_context(lock)
        assert not lock.take()
