"""Choose the tensors of a prompt file that make a context, and refuse files of other methods.

CoOp's relatives store other learned tensors beside a `ctx` that means something else: several
contexts for all classes (PLOT, ProDA), prompts inside the towers (MaPLe, PromptSRC), projections.
Their `ctx` alone would load without an error and predict something else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from tpt.errors import PromptError
from tpt.prompts.meta_network import NAMES
from tpt.text import some

META = "meta_net."
_DROPPED = ("token_prefix", "token_suffix", "bias_vectors")  # they belong to the training classes
_PREFIX = re.compile(r"((\w+\.)*prompt_learner\.)?(module\.)*(?=\w)")
# The frozen CLIP that some checkpoints hold too, by OpenAI's names.
_CLIP = re.compile(
    r"(module\.)*(logit_scale|((image_encoder|ZS_image_encoder|text_encoder|clip_model|clip|model)\.)+(visual\.)?"
    r"(logit_scale|class_embedding|positional_embedding|token_embedding\.weight|text_projection"
    r"|proj|(ln_(pre|post|final)|conv1)\.(weight|bias)|(attnpool|bn\d|conv\d|layer\d)\..+"
    r"|transformer\.resblocks\.\d+\.(ln_\d|attn|attn\.out_proj|mlp\.c_(fc|proj))\."
    r"(in_proj_)?(weight|bias)))"
)


def choose_tensors(source: Path, state: dict[Any, Any]) -> dict[str, Any]:
    """The tensors that make a context, among all tensors of a file.

    Raises:
        PromptError: there are none, or the file holds other learned tensors too.
    """
    named = {key: value for key, value in state.items() if isinstance(key, str)}
    named = {_PREFIX.sub("", key, count=1): value for key, value in named.items()}
    # KgCoOp's files hold half a meta-network that it never uses.
    meta = "bias_vectors" not in named
    whole = all(META + name in named for name in NAMES)
    chosen, others = {}, []
    for key, value in named.items():
        own = key.startswith(META) and (not whole or key.removeprefix(META) in NAMES)
        if key in ("vectors", "ctx") or (meta and own):
            chosen[key] = value
        elif isinstance(value, Tensor) and not (own or key in _DROPPED or _CLIP.fullmatch(key)):
            others.append(key)
    if "vectors" not in chosen and not isinstance(chosen.get("ctx"), Tensor):
        raise not_a_prompt(source, "a file without context vectors under the key ctx or vectors")
    if others or len({"vectors", "ctx"} & chosen.keys()) > 1:
        listed = some(others or ["vectors", "ctx"])
        raise PromptError(
            f'The prompt file "{source}" holds other learned tensors beside the context vectors '
            f"({listed}), so it is {_name_method(others)}, and its vectors alone would mean "
            "something else. Expected a prompt of CoOp, CoCoOp, KgCoOp, ProGrad or tpt."
        )
    _check_rows(source, chosen.get("ctx"), named.get("token_prefix"))
    return chosen


def _name_method(others: list[str]) -> str:
    """The method that learned such tensors, and which parts of it cannot be used here."""
    deep = any(("VPT" in key and "text" in key) or "compound_prompts_text" in key for key in others)
    projected = [key for key in others if key.startswith(("proj.", "compound_prompt"))]
    seen = projected or any("VPT" in key and "text" not in key for key in others)
    if not (deep or seen):
        return "of a method that this version does not read"
    lacking = ["the prompts of the text tower's deeper layers"] * deep
    lacking += ["the prompts of the image tower"] * bool(seen)
    method = "MaPLe" if projected else "PromptSRC or its relatives (IVLP, VPT)"
    return f"of {method}: {' and '.join(lacking)} cannot be used here"


def _check_rows(source: Path, vectors: Any, prefix: Any) -> None:
    """Refuse a (K, M, D) context that is not one a class; `token_prefix` has one row a class."""
    if not (isinstance(prefix, Tensor) and isinstance(vectors, Tensor) and vectors.ndim == 3):
        return
    if prefix.ndim == 0 or len(prefix) != len(vectors):
        rows = 0 if prefix.ndim == 0 else len(prefix)
        raise PromptError(
            f'The prompt file "{source}" holds {len(vectors)} contexts for {rows} rows of class '
            "tokens (token_prefix), so they are not one context a class but several for all, as "
            "PLOT and ProDA learn them. PLOT compares each of them with parts of a picture, which "
            "is not supported. Expected as many contexts as rows, or one context (M, D)."
        )


def not_a_prompt(source: Path, what: str) -> PromptError:
    return PromptError(
        f'"{source}" is not a prompt file: expected context vectors (M, D) or (K, M, D), found '
        f"{what}."
    )
