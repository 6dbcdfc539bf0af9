"""The plan of the shared-prefix path: every end token sees its own prompt and nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import open_clip
import pytest
import torch

import tpt
from tpt.prompts._packing import PackingPlan, fill_rows, plan_packing
from tpt.prompts.token_rows import PromptRows, build_rows, build_sentence_rows, pooled_columns

ALIKE = ["black swan", "black grouse", "black", "cat", "black swan", "black swan song", "catapult"]


def place_seen(plan: PackingPlan, token: int) -> torch.Tensor:
    """Packed places of the tokens that one sees, in the order of their columns."""
    row = token // plan.length
    sees = plan.hidden[row, 0, token % plan.length] == 0  # (P + R,)
    places = torch.cat([torch.arange(plan.shared), row * plan.length + torch.arange(plan.length)])
    found = places[sees]
    return found[plan.columns[found].argsort(stable=True)]


def check_prompts(rows: PromptRows, ends: torch.Tensor, plan: PackingPlan) -> None:
    """Each end token sees the columns of its prompt once each, with their ids and vectors."""
    vectors = {int(t): int(v) for t, v in zip(plan.slot_tokens, plan.slot_vectors, strict=True)}
    for k, (ids, slots, end) in enumerate(zip(rows.ids, rows.slots, ends.tolist(), strict=True)):
        places = place_seen(plan, int(plan.ends[k]))
        assert plan.columns[places].tolist() == list(range(end + 1))
        assert torch.equal(plan.ids[places], ids[: end + 1])
        standing = [vectors.get(place, -1) for place in places.tolist()]
        expected = [slots.tolist().index(c) if c in slots else -1 for c in range(end + 1)]
        assert standing == expected
        for place in places.tolist():  # and so does every token on the way
            before = place_seen(plan, place)
            assert torch.equal(before, places[: len(before)])


@pytest.mark.parametrize(("position", "before"), [("end", 4), ("middle", 2), ("front", 0)])
@pytest.mark.parametrize("class_specific", [False, True])
def test_a_token_sees_its_own_prompt_alone(
    golden: SimpleNamespace, position: str, before: int, class_specific: bool
) -> None:
    names = [*ALIKE, *open_clip.IMAGENET_CLASSNAMES[:40]]
    rows = build_rows(golden.clip, names, 4, before, position)
    ends = pooled_columns(golden.clip, rows.ids)
    plan = plan_packing(rows, ends, class_specific)
    check_prompts(rows, ends, plan)
    if class_specific:
        for k in range(len(names)):
            seen = set(place_seen(plan, int(plan.ends[k])).tolist())
            mine = [
                r for t, r in zip(plan.slot_tokens, plan.slot_rows, strict=True) if int(t) in seen
            ]
            assert len(mine) == 4
            assert set(map(int, mine)) == {k}


def test_prompts_that_begin_alike_share_their_first_tokens(golden: SimpleNamespace) -> None:
    names = [*ALIKE, "cat that sleeps on a long red sofa in the sun"]  # so rows hold a tree
    rows = build_sentence_rows(golden.clip, [f"a photo of a {name}." for name in names])
    ends = pooled_columns(golden.clip, rows.ids)
    plan = plan_packing(rows, ends, False)
    check_prompts(rows, ends, plan)
    words = [tuple(row[: end + 1]) for row, end in zip(rows.ids.tolist(), ends, strict=True)]
    prefixes = {words[k][:n] for k in range(len(words)) for n in range(1, len(words[k]))}
    assert int(plan.real.sum()) == len(prefixes) + len(names)  # an end token is a class's own
    assert len(set(plan.ends.tolist())) == len(names)  # also of a name that came twice


def test_a_tree_that_no_row_can_hold_is_cut() -> None:
    own = [[1, 2, third, 9] for third in range(100)]
    length, trees, row_of = fill_rows(own, 3)
    sizes = [sum(4 - common for _, common in tree) for tree in trees]
    assert max(sizes) <= length
    assert sum(map(len, trees)) == 100
    used = [3] + [0] * max(row_of)
    for row, size in zip(row_of, sizes, strict=True):
        used[row] += size
    assert max(used) <= length


def test_a_thousand_names_take_4032_tokens(golden: SimpleNamespace) -> None:
    rows = build_rows(golden.clip, open_clip.IMAGENET_CLASSNAMES, 4, 4, "end")
    ends = pooled_columns(golden.clip, rows.ids)
    context = tpt.Context.from_words(golden.clip, "a photo of a")
    plan = tpt.PromptEngine(golden.clip, open_clip.IMAGENET_CLASSNAMES, context)._encode.plan
    assert plan.shared == 5  # the start mark and four context vectors
    # 4,170 where the shared tokens alone were kept once, 77,000 where none were
    assert (5 + int((ends + 1 - 5).sum()), int(plan.real.sum())) == (4170, 4013)
    assert (plan.rows, plan.length) == (168, 24)
