"""The registry: finding a method by name, its settings, and options of other methods."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

import tpt
from tpt.errors import MethodError
from tpt.methods import registry
from tpt.methods.registry import (
    GROUP,
    METHODS,
    MethodInfo,
    choose_plugin,
    find_method,
    make_method,
    make_settings,
)


@pytest.fixture(scope="module")
def engine(golden: SimpleNamespace) -> tpt.PromptEngine:
    return tpt.PromptEngine(golden.clip, ["cat", "dog"])


def test_the_registry_holds_every_method() -> None:
    assert list(METHODS) == [
        *("zero_shot", "tpt", "vte", "zero", "mta", "tps", "ctpt", "tda"),
        *("oga", "stata", "rtpt", "tent", "batclip"),
    ]
    for name, info in METHODS.items():
        assert info.name == name
        assert info.title
        assert info.summary
        assert info.cost
        assert len(info.paper) == 10


def test_listing_the_methods_does_not_wait_for_torch() -> None:
    program = (
        "import sys; from tpt.methods.registry import METHODS, find_method\n"
        "print(find_method('tpt').title, *METHODS, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["TPT", *METHODS, "False"], done.stderr


@pytest.mark.parametrize(
    ("said", "name"),
    [
        *((name, name) for name in METHODS),
        ("zero-shot", "zero_shot"),
        ("ZeroShot", "zero_shot"),
        ("TPT", "tpt"),
        ("C-TPT", "ctpt"),
        (" tda ", "tda"),
    ],
)
def test_a_method_is_found_by_its_name_however_it_is_written(said: str, name: str) -> None:
    assert find_method(said) is METHODS[name]


def test_an_unknown_method_is_told_the_nearest() -> None:
    with pytest.raises(MethodError, match='Unknown method "tdaa"') as caught:
        find_method("tdaa")
    assert 'Did you mean "tda"' in str(caught.value)
    assert str(caught.value).endswith(f"{', '.join(METHODS)}.")


def test_the_published_values_are_the_defaults() -> None:
    known = {name: vars(make_settings(name, {})) for name in METHODS}
    tuning = {"keep": 0.1, "steps": 1, "lr": 5e-3}
    assert known["tpt"] == {**tuning, "reset": "image"}
    assert known["tps"] == {**tuning, "per_class": True}
    assert known["ctpt"] == {"weight": 50.0, **tuning, "penalty": "dispersion"}
    assert known["vte"] == {"keep": 0.1}
    assert known["zero"] == {"keep": 0.3}
    assert known["mta"] == {"lambda_y": 0.2, "lambda_q": 4.0}
    assert known["zero_shot"] == {}
    assert known["tda"]["keep"] is None


def test_options_reach_the_method_and_none_is_the_default(engine: tpt.PromptEngine) -> None:
    method = make_method("C-TPT", engine, {"weight": 20.0, "keep": None, "steps": 2})
    assert isinstance(method, tpt.CTPT)
    given = {"weight": 20.0, "keep": 0.1, "steps": 2, "lr": 5e-3, "penalty": "dispersion"}
    assert vars(method.settings) == given


@pytest.mark.parametrize(
    ("name", "option", "text"),
    [
        ("vte", "weight", "--weight has no meaning with --method vte; it belongs to ctpt."),
        (
            "zero_shot",
            "keep",
            "with --method zero_shot; it belongs to tpt, vte, zero, tps, ctpt, tda, rtpt",
        ),
        ("tpt", "lambda_q", "--lambda-q has no meaning with --method tpt; it belongs to mta."),
        ("tps", "reset", "it belongs to tpt, tda, oga. Leave it out, or use another method."),
        ("tpt", "kep", 'No method has the option "kep". Did you mean "keep"?'),
    ],
)
def test_an_option_of_another_method_is_refused(
    engine: tpt.PromptEngine, name: str, option: str, text: str
) -> None:
    with pytest.raises(MethodError) as caught:
        make_method(name, engine, {option: 1})
    assert text in str(caught.value)


def test_an_option_of_another_method_that_was_not_said_is_no_matter() -> None:
    assert make_settings("vte", {"weight": None, "keep": 0.2}).keep == 0.2


def test_the_registry_cannot_be_changed_by_accident() -> None:
    with pytest.raises(TypeError):
        METHODS["mine"] = METHODS["tpt"]  # type: ignore[index]


class Outer:
    class Sometimes(tpt.VTE):
        """Reads views, or keeps state, as its settings say."""

        @property
        def reads_views(self) -> bool:
            return bool(self.settings.keep < 1)


def test_a_plugin_may_be_a_class_in_a_class_that_reads_views_by_its_settings() -> None:
    entry = EntryPoint("sometimes", f"{__name__}:Outer.Sometimes", GROUP)
    info = choose_plugin("sometimes", [entry])
    assert info.method is Outer.Sometimes
    assert info.options == ("keep",)
    assert info.needs_views


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("Zero-Shot",), "is one of tpt's own"),
        (("c_tpt",), "is one of tpt's own"),
        (("mine", "Mine"), 'of "a:A", "b:B" is claimed by several packages'),
    ],
)
def test_a_name_that_another_method_has_is_told(
    names: tuple[str, ...], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ("a:A", "b:B")
    entries = [EntryPoint(n, v, registry.GROUP) for n, v in zip(names, values, strict=False)]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    listed = list(registry.list_methods())
    assert [info.name for info in listed if isinstance(info, MethodInfo)] == list(METHODS)
    (error,) = [info for info in listed if isinstance(info, MethodError)]
    assert text in str(error)
    if names[0] == "mine":
        with pytest.raises(MethodError, match="claimed by several"):
            find_method("MINE")


def test_an_entry_that_names_no_class_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [EntryPoint("mine", "not a name!", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    with pytest.raises(MethodError, match='not of the form "module:Class"'):
        find_method("mine")
