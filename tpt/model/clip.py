"""An open_clip model, frozen, seen as an image tower, a text tower and the facts about them.

`tpt.model.load` finds and builds a model; `tpt.prompts` tunes a prompt. This module gives the size
and statistics that pictures need, their unit features, and whether prompts can share the text
tower's computation.
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
    """How the model's pictures are preprocessed."""

    size: tuple[int, int]  # height, width
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str  # "bicubic" or "bilinear"
    resize_mode: str  # "shortest", "longest" or "squash"
    fill: int  # grey level of the border that "longest" leaves
    centre: str = "round"  # rounds a crop's half pixel: "round" to even (open_clip), or "floor"


class Clip:
    """A frozen CLIP-like model.

    Args:
        model: an open_clip model object (`CLIP`, `CustomTextCLIP`, `CoCa`). It is put in eval
            mode and its weights are frozen; pass a copy if it is still being trained.
        tokenizer: open_clip's tokenizer for it: `tokenizer(list of str) -> (n, L)` token ids.
        name: of the model, as `load_clip` takes it; stored in prompt files.
        pretrained: the weights' tag; stored in prompt files.
        micro_batch: most views in a pass of the image tower; default 4 views of 224 x 224 on a CPU
            (large batches are slower there) and 256 elsewhere, scaled to the picture's size.
        precision: as `load_clip` chose it; default: from the weights' type.
        digest: of the weights (`digest_weights`); default: computed when needed.
        config: of a model that `load_clip` built.
        cuda_graphs: record the text side of a batch as CUDA graphs: one launch instead of hundreds.
            Off until it has been measured on a GPU.

    Raises:
        ModelError: context vectors cannot enter this kind of text tower; `cuda_graphs` on a device
            that has none, or where prompts share no work.
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
        find_text_tower(model, length)  # first, so that a refused model is unchanged
        leave_inference_mode(model)
        self.text = find_text_tower(model, length)
        self._digest, self.config = digest, config
        self.model = model.eval().requires_grad_(False)
        self._image_tower = find_image_tower(model)
        self.tokenizer = tokenizer
        self.name, self.pretrained = name, pretrained
        self.preprocess = read_preprocess(model)
        # exp(logit_scale), the factor of the cosine (100 for the published CLIPs). Read once: each
        # read would wait for a GPU.
        self.logit_scale = float(cast(Tensor, model.logit_scale).exp())
        self.precision = precision or _WORDS.get(self.image_dtype, "fp32")
        self.micro_batch = micro_batch or self._default_micro_batch()
        if cuda_graphs:
            _check_graphs(self)
        self.cuda_graphs = cuda_graphs
        self._has_warned = False  # that passes became smaller

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
        return self._matrix_dtype(self.model)

    @property
    def text_dtype(self) -> torch.dtype:
        """The type in which the text tower multiplies matrices; wider than `dtype` in fp16."""
        return self._matrix_dtype(self.text.transformer)

    def _matrix_dtype(self, tower: nn.Module) -> torch.dtype:
        named = tower.named_parameters()
        matrices = (p.dtype for name, p in named if name.endswith("c_fc.weight"))
        return next(matrices, self.text.token_embedding.weight.dtype)

    @property
    def image_dtype(self) -> torch.dtype:
        """The type of the image tower's pictures: that of its convolutions."""
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
        """L, the most tokens of a prompt, start and end marks included."""
        return self.text.context_length

    @property
    def digest(self) -> str | None:
        """The model's identity by its weights; None if they came rounded."""
        if self._digest is None and all(p.dtype == torch.float32 for p in self.model.parameters()):
            self._digest = digest_weights(self.model)
        return self._digest

    def is_model(self, name: str | None, pretrained: str | None, digest: str | None) -> bool:
        """Whether something was made for this model: by the weights' digest, else by the names.

        The same file elsewhere is the same model. Something without names fits every model.
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
        """Halve the image tower's passes from now on; `size` views were too many."""
        self.micro_batch = max(1, size // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"The device ran out of memory with {size} views in a pass of the image tower; "
                "passes are smaller from now on.",
                stacklevel=4,
            )

    def images_a_pass(self, waiting: int) -> int:
        """How many of the waiting images are computed together: on a CPU one, elsewhere all.

        On a CPU more gain nothing, and an image's numbers stay bit-identical in every batch.
        """
        return 1 if self.device.type == "cpu" else waiting

    @property
    def works_ahead(self) -> bool:
        """Whether the next batch can be launched while the device works; not on a CPU."""
        return self.device.type != "cpu"

    @property
    def batch_size(self) -> int:
        """The default number of images that a stream adapts together: 1 on a CPU, else 8."""
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


def _check_graphs(clip: Clip) -> None:
    """Refuse CUDA graphs if the device has none, or the text tower shares no work.

    Raises:
        ModelError: see above.
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


@torch.inference_mode(False)
def leave_inference_mode(model: nn.Module) -> None:
    """Replace weights made in inference mode, through which no gradient can pass, by copies."""
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
