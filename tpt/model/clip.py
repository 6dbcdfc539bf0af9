"""An open_clip model, frozen, seen as an image tower, a text tower and the facts about them.

`tpt.model.load` finds and builds a model; `tpt.prompts` tunes a prompt. This module answers: what
size and statistics the pictures need, what unit features they give, and whether prompts can share
the text tower's computation.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tpt.errors import ModelError, is_out_of_memory
from tpt.model._building import digest_weights
from tpt.model._config import ModelConfig
from tpt.model._image_tower import find_image_tower
from tpt.model._text_tower import find_text_tower
from tpt.model.precision import multiplying
from tpt.model.surroundings import steady
from tpt.model.transfers import has_streams

_WORDS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class Preprocess:
    """How the model wants its pictures: `(height, width)`, channel statistics, resizing."""

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str  # "bicubic" or "bilinear"
    resize_mode: str  # "shortest", "longest" or "squash"
    fill: int  # grey level of the border that "longest" leaves
    centre: str = "round"  # a crop's half pixel: "round" to the even one (open_clip), or "floor"


class Clip:
    """A frozen CLIP-like model.

    Args:
        model: an open_clip model object (`CLIP`, `CustomTextCLIP`, `CoCa`). It is put in eval
            mode and its weights are frozen; pass a copy if it is still being trained.
        tokenizer: open_clip's tokenizer for it: `tokenizer(list of str) -> (n, L)` token ids.
        name: what `load_clip` would call the model; stored in prompt files.
        pretrained: the weights' tag, likewise.
        micro_batch: most views a pass of the image tower takes; default 4 views of 224 x 224 on a
            CPU (large batches are slower there) and 256 elsewhere, scaled to the picture's size.
        precision: what `load_clip` was asked for; default: what the weights' type says.
        digest: of the weights, if it is known (`digest_weights`); default: looked at when needed.
        config: what the model was built of, where `load_clip` built it.
        cuda_graphs: record the text side of a batch as CUDA graphs: one launch in place of
            hundreds. Off until it has been measured on a GPU.

    Raises:
        ModelError: the text tower is of a kind that context vectors cannot enter; `cuda_graphs`
            where the device has none, or prompts share no work.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[..., Tensor],
        *,
        name: str | None = None,
        pretrained: str | None = None,
        micro_batch: int | None = None,
        digest: str | None = None,
        config: ModelConfig | None = None,
        precision: str | None = None,
        cuda_graphs: bool = False,
    ) -> None:
        length = getattr(tokenizer, "context_length", None)
        find_text_tower(model, length)  # a refused model is left as it was
        leave_inference_mode(model)
        self.text = find_text_tower(model, length)
        self._digest, self.config = digest, config
        self.model = model.eval().requires_grad_(False)
        self._image_tower = find_image_tower(model)
        self.tokenizer = tokenizer
        self.name, self.pretrained = name, pretrained
        self.preprocess = read_preprocess(model)
        # exp(logit_scale), the factor in front of the cosine (100 for the published CLIPs). Read
        # once: on a GPU every look at it would wait for the device.
        self.logit_scale = float(cast(Tensor, model.logit_scale).exp())
        self.precision = precision or _WORDS.get(self.image_dtype, "fp32")
        self.micro_batch = micro_batch or self._default_micro_batch()
        self.cuda_graphs = cuda_graphs and _check_graphs(self)
        self._has_told = False  # that the passes had to become smaller

    def _default_micro_batch(self) -> int:
        height, width = self.preprocess.size
        views = 4 if self.device.type == "cpu" else 256
        return max(1, min(256, views * 224 * 224 // (height * width)))

    def __repr__(self) -> str:
        height, width = self.preprocess.size
        path = "shared-prefix" if self.text.packable else "full-length"
        return (
            f"Clip({self.name or type(self.model).__name__}, {self.pretrained or 'no tag'}, "
            f"{height}x{width}, width {self.width}, {path} text, {self.device}, {self.dtype})"
        )

    @property
    def device(self) -> torch.device:
        return self.text.token_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type in which the towers multiply matrices (the layer norms may be wider)."""
        named = self.model.named_parameters()
        matrices = (p.dtype for name, p in named if name.endswith("c_fc.weight"))
        return next(matrices, self.text.token_embedding.weight.dtype)

    @property
    def text_dtype(self) -> torch.dtype:
        """The type in which the text tower multiplies matrices; wider than `dtype` in fp16."""
        named = self.text.transformer.named_parameters()
        matrices = (p.dtype for name, p in named if name.endswith("c_fc.weight"))
        return next(matrices, self.text.token_embedding.weight.dtype)

    @property
    def image_dtype(self) -> torch.dtype:
        """The type in which the image tower takes pictures: that of its convolutions."""
        weights = self.model.visual.parameters()  # type: ignore[union-attr]
        return next((p.dtype for p in weights if p.ndim == 4), self.dtype)

    @property
    def width(self) -> int:
        """D, the width of a token and of a context vector."""
        return self.text.token_embedding.embedding_dim

    @property
    def embedding_width(self) -> int:
        """E, the width of image features and class features."""
        return self.text.embedding_width

    @property
    def context_length(self) -> int:
        """L, the number of tokens a prompt may have, the two end marks included."""
        return self.text.context_length

    @property
    def digest(self) -> str | None:
        """What the model is, by its weights; None where they were rounded before we saw them."""
        if self._digest is None and all(p.dtype == torch.float32 for p in self.model.parameters()):
            self._digest = digest_weights(self.model)
        return self._digest

    def is_model(self, name: str | None, pretrained: str | None, digest: str | None) -> bool:
        """Whether something was made for this model: by its weights' digest, else by its names.

        The same file elsewhere is the same model. What does not say what it is for fits all.
        """
        if digest is not None and self.digest is not None:
            return digest == self.digest
        if name is None or self.name is None:
            return True
        return (name, pretrained) == (self.name, self.pretrained)

    @steady()
    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Unit features (n, E), float32, of normalised pictures (n, 3, H, W)."""
        images = images.to(self.device, self.image_dtype)
        while True:
            size = self.micro_batch
            passes = math.ceil(len(images) / size)
            try:
                with multiplying(self.precision, self.device):
                    return torch.cat([self._encode(part) for part in images.tensor_split(passes)])
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
            self._halve(min(size, len(images)))

    def _halve(self, size: int) -> None:
        """Let passes of the image tower be half of what was too many views, from now on."""
        self.micro_batch = max(1, size // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if not self._has_told:
            self._has_told = True
            warnings.warn(
                f"The device ran out of memory with {size} views a pass of the image tower; passes "
                "are smaller from here on.",
                stacklevel=4,
            )

    def images_a_pass(self, waiting: int) -> int:
        """How many of the images that wait are computed together.

        One on a CPU, where more gain nothing: an image's numbers are then the same to the last bit
        whatever shares its batch. Elsewhere all.
        """
        return 1 if self.device.type == "cpu" else waiting

    @property
    def works_ahead(self) -> bool:
        """Whether the device works on its own, so that the next batch is launched before a wait.

        A CPU has done its work when the call returns.
        """
        return self.device.type != "cpu"

    @property
    def batch_size(self) -> int:
        """The default number of images that a stream adapts together."""
        return self.images_a_pass(8)

    def encode_views(self, views: Tensor) -> Tensor:
        """Unit features (B, N, E) of normalised views (B, N, 3, H, W)."""
        parts = [
            self.encode_images(part.flatten(0, 1)).unflatten(0, part.shape[:2])
            for part in views.split(self.images_a_pass(len(views)))
        ]
        return torch.cat(parts)

    def _encode(self, images: Tensor) -> Tensor:
        return F.normalize(self._image_tower(images).float(), dim=-1)


def _check_graphs(clip: Clip) -> bool:
    """True where the text side can be recorded as CUDA graphs.

    Raises:
        ModelError: where it cannot.
    """
    if not has_streams(clip.device):
        raise ModelError(
            f"CUDA graphs need a CUDA device, but this model is on {clip.device}. Go without them "
            "(no --cuda-graphs)."
        )
    if not clip.text.packable:
        raise ModelError(
            "CUDA graphs are recorded for text towers whose prompts share work; this model's do "
            "not. Go without them (no --cuda-graphs)."
        )
    return True


@torch.inference_mode(False)
def leave_inference_mode(model: nn.Module) -> None:
    """Exchange weights made in inference mode, through which no gradient can pass, for copies."""
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.is_inference():
                setattr(module, name, nn.Parameter(weight.clone()))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_inference():
                setattr(module, name, buffer.clone())


def read_preprocess(model: nn.Module) -> Preprocess:
    """The preprocessing facts that open_clip keeps with the image tower."""
    visual: Any = model.visual
    facts = dict(getattr(visual, "preprocess_cfg", None) or {})
    size = facts.get("size", getattr(visual, "image_size", 224))
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))
    mean = facts.get("mean") or getattr(visual, "image_mean", None)
    std = facts.get("std") or getattr(visual, "image_std", None)
    return Preprocess(
        size=(height, width),
        mean=tuple(mean or (0.48145466, 0.4578275, 0.40821073)),
        std=tuple(std or (0.26862954, 0.26130258, 0.27577711)),
        # open_clip knows a third word, "random"; it too means bicubic where nothing is trained.
        interpolation="bilinear" if facts.get("interpolation") == "bilinear" else "bicubic",
        resize_mode=facts.get("resize_mode") or "shortest",
        fill=int(facts.get("fill_color") or 0),
        centre=facts.get("centre") or "round",
    )
