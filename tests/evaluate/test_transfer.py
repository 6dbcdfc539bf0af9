"""Transfer between data sets: methods by prompt, pictures left out, and what the matrix says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tpt import Context
from tpt.data.labelled_sets import ArrayRow, LabelledSet, Sample
from tpt.errors import MethodError, OutputError, PromptError, SourceError
from tpt.evaluate.evaluation import Evaluation
from tpt.evaluate.method_pool import Starts
from tpt.evaluate.method_specs import MethodSpec
from tpt.evaluate.transfer import (
    Prompt,
    check_folder,
    check_prompt,
    cross_methods,
    leave_out,
    name_keys,
)
from tpt.evaluate.transfer_measure import measure_transfer
from tpt.evaluate.walks import plan_walks
from tpt.report.transfer_tables import (
    console_table,
    list_panels,
    make_tables,
    set_tables,
)

SETS = ("photo", "sketch", "cars")


def make_set(name: str, count: int = 4, folder: str = "x") -> LabelledSet:
    """Pictures that take turns in two classes."""
    samples = [Sample(f"{i}.png", i % 2, f"{folder}/{name}/{i}.png") for i in range(count)]
    return LabelledSet(
        name, "one folder a class", name, ("cat", "dog"), ("cat", "dog"), tuple(samples)
    )


# --- methods ---


def test_every_method_starts_from_the_words_and_from_every_prompt() -> None:
    specs = cross_methods(["tpt:lr=0.02"], ["photo", "b"])
    assert [(spec.name, spec.start) for spec in specs] == [
        ("zero-shot", None),
        ("zero-shot+photo", "photo"),
        ("zero-shot+b", "b"),
        ("tpt:lr=0.02", None),
        ("tpt+photo:lr=0.02", "photo"),
        ("tpt+b:lr=0.02", "b"),
    ]
    assert all(spec.options == {"lr": 0.02} for spec in specs if spec.method == "tpt")


@pytest.mark.parametrize("word", ["tpt+init", "zero-shot+ensemble"])
def test_a_method_that_says_where_it_starts_is_refused(word: str) -> None:
    plain = word.partition("+")[0]
    with pytest.raises(MethodError, match=rf'^"{word[:4]}.*words and from every.*"{plain}"\.$'):
        cross_methods([f"zero-shot,{word}"], ["init"])


def test_names_lose_the_signs_that_mean_something_in_a_method_and_stay_different() -> None:
    keys = name_keys(["pacs/photo", "a+b", "a:b", "a,b", "two words"])
    assert keys["pacs/photo"] == "pacs/photo"
    assert len(set(keys.values())) == 5
    assert not any(set("+:, ") & set(key) for key in keys.values())


# --- prompts ---


def test_a_prompt_with_a_context_for_each_class_cannot_be_transferred(tmp_path: Path) -> None:
    path = str(tmp_path / "p.safetensors")
    context = Context(torch.zeros(3, 4, 8))
    context.described(classes=("cat", "dog", "owl")).save(path)
    with pytest.raises(PromptError, match=r"each of its classes \(cat, dog, owl\).*--class-spec"):
        check_prompt(Prompt("pets", path))


def test_a_prompt_file_that_is_not_there_is_named() -> None:
    with pytest.raises(PromptError, match=r"gone\.safetensors"):
        check_prompt(Prompt("pets", "gone.safetensors"))


# --- sets ---


def test_pictures_that_a_prompt_learned_from_are_left_out_and_told(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pets")
    whole = make_set("pets", 4, str(tmp_path / "link" / ".."))
    taken = {str(tmp_path / "pets" / name) for name in ("0.png", "2.png", "9.png")}
    left = leave_out(whole, taken)
    assert [sample.key for sample in left.samples] == ["1.png", "3.png"]
    assert left.classes == whole.classes
    assert left.notes == (
        "2 of the 4 pictures are left out, because a prompt is learned on them.",
        "That leaves no picture of 1 class: cat.",
    )


def test_a_set_without_such_pictures_stays_as_it_is() -> None:
    whole = make_set("pets")
    assert leave_out(whole, {"/elsewhere/0.png"}) is whole
    assert leave_out(whole, ()) is whole


def test_rows_of_arrays_are_nobodys_training_pictures() -> None:
    sample = Sample("0", 0, ArrayRow(None, 0))  # type: ignore[arg-type]
    whole = LabelledSet("c", "arrays", "c", ("a", "b"), ("a", "b"), (sample,))
    assert leave_out(whole, {"/x"}) is whole


def test_a_set_of_which_nothing_would_be_left_is_an_error(tmp_path: Path) -> None:
    whole = make_set("pets", 2, str(tmp_path))
    with pytest.raises(SourceError, match=r'all 2 pictures of "pets".*fewer --shots'):
        leave_out(whole, {str(tmp_path / "pets" / f"{i}.png") for i in range(2)})


@pytest.mark.parametrize(("settings", "fits"), [({"transfer": {}}, True), ({"seed": 0}, False)])
def test_a_folder_with_another_kind_of_run_is_refused(
    tmp_path: Path, settings: dict[str, Any], fits: bool
) -> None:
    check_folder(str(tmp_path))  # with none
    (tmp_path / "predictions.jsonl").write_text("{}\n")
    sidecar = tmp_path / "predictions.jsonl.settings.json"
    sidecar.write_text(json.dumps({"settings": settings, "run": {}}))
    if fits:
        check_folder(str(tmp_path))
    else:
        with pytest.raises(OutputError, match=r"holds a run of `tpt eval`.*another --output"):
            check_folder(str(tmp_path))


# --- the matrix ---

# Which of four pictures each prompt has right, on each set.
HITS = {
    "zero-shot": {"photo": "1100", "sketch": "1000", "cars": "1110"},
    "zero-shot+photo": {"photo": "1111", "sketch": "1100", "cars": "1100"},
    "zero-shot+x": {"photo": "1100", "sketch": "0000", "cars": "1111"},
    "tpt": {"photo": "1110", "sketch": "1100", "cars": "1110"},
    "tpt+photo": {"photo": "1110", "sketch": "1111", "cars": "1110"},
    "tpt+x": {"photo": "1110", "sketch": "1000", "cars": "1110"},
}


class FakeShelf:
    """Knows its methods; what a prompt file holds is not asked for."""

    def __init__(self, specs: tuple[MethodSpec, ...]) -> None:
        self.specs = specs
        self.starts = Starts({})

    def describe(self, spec: MethodSpec) -> dict[str, Any]:
        context = {"file": f"{spec.start}.safetensors", "shots": 16} if spec.start else {}
        return {"name": spec.name, "context": context}


@pytest.fixture
def measure(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What transfer.json says of the hits above, with or without a broken picture."""

    def measure(methods: tuple[str, ...] = ("tpt",), broken: bool = False) -> dict[str, Any]:
        walks = plan_walks([make_set(name) for name in SETS])
        path = tmp_path / "predictions.jsonl"
        with path.open("w") as file:
            for walk in walks:
                for i, sample in enumerate(walk.set.samples):
                    line: dict[str, Any] = {"set": walk.set.name, "key": sample.key, "label": i % 2}
                    found = {
                        method: tell(i % 2, hits[walk.set.name][i] == "1")
                        for method, hits in HITS.items()
                    }
                    line |= {"image_ms": 1.0, "methods": found}
                    file.write(json.dumps(line, separators=(",", ":")) + "\n")
            if broken:
                error = {"type": "ImageError", "message": "gone"}
                line = {"set": SETS[-1], "key": "4.png", "label": 0, "error": error}
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
        settings = {"model": "tiny", "pretrained": None, "seed": 0, "methods": [], "sets": []}
        nothing: Any = None
        pool: Any = FakeShelf(cross_methods(methods, ("photo", "x")))
        run = Evaluation(nothing, pool, nothing, walks, settings, {})
        prompts = {"photo": Prompt("photo", "p", ("learned here.",)), "x": Prompt("my $x_1", "x")}
        return measure_transfer(run, prompts, str(path))

    return measure


def tell(label: int, right: bool) -> dict[str, Any]:
    best = label if right else 1 - label
    top = [[best, 0.8], [1 - best, 0.2]]
    return {"top": top, "rank": int(not right), "nll": 0.2, "brier": 0.1, "ms": 0.1}


def test_the_matrix_has_each_prompts_accuracy_on_each_set(measure: Any) -> None:
    zero_shot, tpt = measure()["matrices"]
    assert (zero_shot["method"], tpt["method"]) == ("zero-shot", "tpt")
    assert zero_shot["words"]["accuracy"] == [0.5, 0.25, 0.75]
    assert zero_shot["accuracy"] == [[1.0, 0.5, 0.5], [0.5, 0.0, 1.0]]
    assert tpt["accuracy"] == [[0.75, 1.0, 0.75], [0.75, 0.25, 0.75]]


def test_a_difference_is_to_the_same_method_from_the_words(measure: Any) -> None:
    zero_shot, tpt = measure()["matrices"]
    assert zero_shot["difference"] == [[0.5, 0.25, -0.25], [0.0, -0.25, 0.25]]
    assert tpt["difference"] == [[0.0, 0.5, 0.0], [0.0, -0.25, 0.0]]
    assert tpt["mcnemar_p"][0] == [1.0, 0.5, 1.0]
    low, high = tpt["difference_interval"][0][1]
    assert 0 <= low < 0.5 < high <= 1


def test_an_average_leaves_out_the_set_that_the_prompt_was_learned_on(measure: Any) -> None:
    matrix = measure()["matrices"][0]
    assert matrix["words"]["average"] == 0.5
    assert matrix["average"] == [0.5, 0.5]  # of sketch and cars; of all three
    assert matrix["average_difference"] == [0.0, 0.0]


def test_pictures_without_a_prediction_are_counted_and_told(measure: Any) -> None:
    found = measure(broken=True)
    assert [(t["images"], t["failed"]) for t in found["targets"]] == [(4, 0), (4, 0), (4, 1)]
    assert "cars: 1 more could not be read; the numbers are of the others." in set_tables(found)[0]


def test_what_is_written_is_strict_json_and_names_rows_and_columns(measure: Any) -> None:
    found = measure()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [source["name"] for source in found["sources"]] == ["photo", "my $x_1"]
    assert found["sources"][0]["file"] == "photo.safetensors"
    assert [target["name"] for target in found["targets"]] == list(SETS)
    assert found["words"] == "a photo of a {}."


# --- tables ---


def test_the_table_has_the_words_first_then_a_row_a_prompt(measure: Any) -> None:
    table = make_tables(measure(("zero-shot",)))[0]
    assert table.header[:5] == ("Learned on", *SETS, "Average of the others")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ['"a photo of a {}."', "50.00", "25.00", "75.00", "50.00", "\N{EN DASH}"],
        ["photo", "100.00 (own)", "50.00", "50.00", "50.00", "0.00"],
        ["my $x_1", "50.00", "0.00", "100.00", "50.00", "0.00"],
    ]
    best = [[cell.best for cell in row][1:4] for row in table.rows]
    assert best == [[False] * 3, [True, True, False], [False, False, True]]


def test_the_second_table_has_the_differences_with_their_intervals(measure: Any) -> None:
    table = make_tables(measure())[3]
    assert table.title.startswith("Transfer, tpt: difference to the hand-crafted words")
    first = [cell.text for cell in table.rows[0]]
    assert first[:2] == ["photo", "0.0 (0.0 to 0.0) (own)"]
    assert first[2].startswith("+50.0 (")


def test_markdown_and_latex_hold_every_method_and_then_the_published_averages(
    measure: Any,
) -> None:
    found = measure()
    markdown, latex = set_tables(found)
    assert markdown.count("| Learned on |") == 4
    assert latex.count(r"\begin{table}") == 5
    own, published = markdown.split("## Transfer, published: top-1, %\n")
    assert "| CoOp, 16 shots, M = 4, published (arXiv 2109.01134, figures from" in published
    assert "| TPT, published (arXiv 2209.07511) | 65.10 |" in published
    assert "not measured in this run" in published
    assert "ublished" not in own
    assert "- photo: photo.safetensors, 16 shots\n- photo: learned here.\n" in markdown
    assert r"my \$x\_1 & 50.00 & 0.00" in latex


def test_the_console_table_fits_a_terminal_and_leaves_out_notes(measure: Any) -> None:
    text = console_table(measure(("zero-shot",)))
    result_set, rule, words, first, second = text.splitlines()
    assert result_set.split()[-4:] == ["cars", "others", "vs", "words"]
    assert set(rule) == {"-"}
    assert words.split()[-2:] == ["50.00", "-"]
    assert "(own)" in first
    assert second.startswith("my $x_1 ")
    assert max(map(len, text.splitlines())) <= 100


def test_the_heat_map_has_a_titled_panel_a_method_and_one_without_title(measure: Any) -> None:
    both, single = list_panels(measure()), list_panels(measure(("zero-shot",)))
    assert [panel.title for panel in both] == ["zero-shot", "tpt"]
    assert [panel.title for panel in single] == [""]
    assert (single[0].rows, single[0].columns) == (("photo", "my $x_1"), SETS)
    assert single[0].base == [0.5, 0.25, 0.75]
