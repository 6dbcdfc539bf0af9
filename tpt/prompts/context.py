"""The context: the learnable vectors of a prompt, and where the class name stands among them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tpt.errors import PromptError
from tpt.model.surroundings import steady
from tpt.prompts.calibration import Calibration
from tpt.prompts.files import load_context, save_context
from tpt.prompts.head import Head
from tpt.prompts.meta_network import MetaNet
from tpt.prompts.prompt_info import POSITIONS, Blend, PromptInfo
from tpt.prompts.token_rows import check_template, word_ids, word_ids_after

if TYPE_CHECKING:
    from tpt.model.clip import Clip


@dataclass(frozen=True, eq=False)
class Context:
    """Context vectors and the place of the class name.

    Args:
        vectors: (M, D) for one context that all classes share ("unified"), or (K, M, D) for one a
            class ("class-specific"). Copied as float32 to the CPU.
        position: "end" (vectors, then the class name), "middle" or "front".
        before: for "middle", how many vectors come before the class name; default floor(M / 2).
        info: where the context came from; written to and read from prompt files.
        meta: CoCoOp's meta-network, which shifts the vectors for each image; default none.
        blend: hand-crafted templates mixed into the class features; default none.
        head: a few-shot head that answers instead of the class features; default none.
        calibration: how the scores of one method are read; default unchanged.

    Raises:
        PromptError: a wrong shape, an unknown position, a vector that is NaN or infinite, a
            meta-network or a head that does not fit.
    """

    vectors: Tensor
    position: str = "end"
    before: int = -1
    info: PromptInfo = field(default_factory=PromptInfo)
    meta: MetaNet | None = None
    blend: Blend | None = None
    head: Head | None = None
    calibration: Calibration | None = None

    @torch.inference_mode(False)
    @steady()
    def __post_init__(self) -> None:
        # A copy, because the caller may go on training its vectors.
        vectors = torch.as_tensor(self.vectors).detach().to("cpu", torch.float32, copy=True)
        vectors = vectors.contiguous()
        if vectors.ndim not in (2, 3) or 0 in vectors.shape:
            raise PromptError(
                f"Context vectors have shape {tuple(vectors.shape)}; expected (M, D), or (K, M, D) "
                "for one context a class, with at least one vector."
            )
        if self.position not in POSITIONS:
            raise PromptError(
                f'Unknown position "{self.position}" of the class name: expected end, middle or '
                "front."
            )
        if not bool(vectors.isfinite().all()):
            bad = int((~vectors.isfinite()).sum())
            raise PromptError(
                f"{bad} of the {vectors.numel()} numbers in the context vectors are NaN or "
                "infinite. The training that made them probably diverged; use an earlier file."
            )
        names = self.info.classes
        if vectors.ndim == 3 and names is not None and len(names) != len(vectors):
            raise PromptError(
                f"The context vectors are class-specific for {len(vectors)} classes, but "
                f"{len(names)} class names came with them; expected one name a class."
            )
        count = vectors.shape[-2]
        places = {"end": count, "front": 0, "middle": count // 2}
        before = places[self.position] if self.before < 0 else self.before
        if before > count or (self.position != "middle" and before != places[self.position]):
            raise PromptError(
                f"{before} vectors ahead of the class name do not go with position "
                f'"{self.position}" and {count} vectors.'
            )
        if self.meta is not None and (vectors.ndim, vectors.shape[-1]) != (2, self.meta.width):
            raise PromptError(
                f"A meta-network that shifts vectors of width {self.meta.width} came with context "
                f"vectors of shape {tuple(vectors.shape)}; expected (M, {self.meta.width})."
            )
        if self.head is not None:
            if names is not None and len(names) != self.head.classes:
                raise PromptError(
                    f"The head is for {self.head.classes} classes, but {len(names)} class names "
                    "came with it; expected one name a class."
                )
            object.__setattr__(self, "head", self.head.to(torch.device("cpu")))
        if self.meta is not None:
            object.__setattr__(self, "meta", MetaNet.from_tensors(self.meta.tensors()))
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "before", before)

    @property
    def class_specific(self) -> bool:
        return self.vectors.ndim == 3

    @property
    def fixed_classes(self) -> bool:
        """Whether it only works with the classes that it was trained on."""
        return self.class_specific or self.head is not None

    @property
    def sha256(self) -> str:
        """A digest of all numbers: of the vectors, the meta-network and the head."""
        parts = [self.vectors]
        for beside in (self.meta, self.head):
            parts += beside.tensors().values() if beside else ()
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()

    @property
    def conditional(self) -> bool:
        """Whether each image has its own context (CoCoOp)."""
        return self.meta is not None

    @classmethod
    @steady()
    def from_words(cls, clip: Clip, words: str) -> Context:
        """Make a context from words, e.g. "a photo of a".

        `{}` marks the place of the class name ("a photo of a {} in the wild"); without it the
        name comes last. The engine adds a "." to the prompt, so one at the end of `words` is
        dropped; `_` is a space.

        Raises:
            PromptError: no words, more than one `{}`, or as `check_template`.
        """
        check_template(words)
        text = words.replace("_", " ").strip()
        text = text[:-1].rstrip() if text.endswith(".") else text
        parts = text.split("{}") if "{}" in text else [text, ""]
        if len(parts) != 2:
            raise PromptError(
                f'The template "{words}" holds {len(parts) - 1} places for the class name; '
                "expected exactly one {}, or none to put the name last."
            )
        ahead, behind = word_ids(clip, parts[0].strip()), word_ids_after(clip, parts[1].strip())
        ids = torch.cat([ahead, behind])
        if len(ids) == 0:
            raise PromptError(
                f'The template "{words}" has no words beside the class name, so there is '
                'nothing to tune. Give at least one, for example "a photo of a {}".'
            )
        position = "end" if len(behind) == 0 else "front" if len(ahead) == 0 else "middle"
        weight = clip.text.token_embedding.weight
        info = PromptInfo(clip.name, clip.pretrained, words=words, digest=clip.digest)
        return cls(weight[ids.to(weight.device)], position, len(ahead), info)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Context:
        """Read a prompt file: ours (.safetensors or .pt) or an official CoOp checkpoint.

        Nothing in the file is executed.

        Raises:
            PromptError: the file cannot be read, or is not a prompt.
        """
        return load_context(path, cls)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .safetensors (preferred) or .pt file; a failure leaves an older file unchanged.

        Raises:
            PromptError: another suffix.
            OutputError: the disk refused.
        """
        save_context(self, path)

    def described(self, **facts: object) -> Context:
        """The same context with some fields of `info` set, e.g. `described(shots=16)`."""
        if {"model", "pretrained"} & facts.keys():
            facts = {"digest": None, **facts}  # the known digest is another model's
        return replace(self, info=replace(self.info, **facts))  # type: ignore[arg-type]
