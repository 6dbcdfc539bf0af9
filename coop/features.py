"""Image features of labelled pictures: the frozen image tower, run as seldom as it can be.

Training needs augmented views (CoOp: random resized crops of 8 to 100 % of the area, bicubic, and
flips), testing the plain one. View number v of a picture is drawn from the seed, the picture's path
and v alone, so that a run that keeps R views and one that makes them anew every epoch see the same
pictures for the first R epochs: with R at least the number of epochs they are the same run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from tpt.clip import Clip
from tpt.errors import MethodError
from tpt.runtime.streaming import decode_ahead
from tpt.views import cut, draw_crops, normalise, preprocess_plain, shrink_huge

AUGMENTATIONS = ("crop", "none")
_SCALE = (0.08, 1.0)

Tell = Callable[[int, int], None]
"""Called with (pictures done, pictures in all) while something is encoded."""


class FeatureBank:
    """Encodes pictures and remembers what it can: plain features, augmented views, broken files.

    Args:
        clip: the model.
        augment: "crop" or "none", for the views of `augmented`.
        num_workers: decoding threads.
    """

    def __init__(self, clip: Clip, augment: str = "crop", num_workers: int = 2) -> None:
        if augment not in AUGMENTATIONS:
            raise MethodError(f'Unknown augmentation "{augment}": expected crop or none.')
        self.clip, self.augment, self.num_workers = clip, augment, num_workers
        self.failed: dict[str, str] = {}  # path -> why it cannot be read
        self._plain: dict[str, Tensor] = {}
        self._views: dict[tuple[str, int, int], Tensor] = {}

    def plain(self, paths: Sequence[str], tell: Tell | None = None) -> dict[str, Tensor]:
        """Unit features (E,) of the plain view of every readable path."""
        todo = [path for path in dict.fromkeys(paths) if path not in self._plain]
        for path, picture in self._decode(todo, tell):
            view = preprocess_plain(picture, self.clip.preprocess)
            self._plain[path] = self._encode(view.unsqueeze(0))[0]
        return {path: self._plain[path] for path in paths if path in self._plain}

    def augmented(
        self,
        paths: Sequence[str],
        seed: int,
        views: Sequence[int],
        *,
        keep: bool = True,
        tell: Tell | None = None,
    ) -> dict[str, Tensor]:
        """Unit features (len(views), E) of augmented views of every readable path.

        Args:
            paths: the pictures.
            seed: of the views' chance.
            views: the views' numbers.
            keep: remember them, so that asking again costs nothing.
            tell: progress.
        """
        if self.augment == "none":
            plain = self.plain(paths, tell)
            return {path: feature.expand(len(views), -1) for path, feature in plain.items()}
        wanted = {path: [(path, seed, view) for view in views] for path in dict.fromkeys(paths)}
        todo = [p for p, keys in wanted.items() if not all(key in self._views for key in keys)]
        made: dict[str, Tensor] = {}
        for path, picture in self._decode(todo, tell):
            made[path] = self._encode(torch.cat([self._crop(picture, k) for k in wanted[path]]))
            if keep:
                self._views |= dict(zip(wanted[path], made[path].unbind(), strict=True))
        for path, keys in wanted.items():
            if path not in made and path not in self.failed:
                made[path] = torch.stack([self._views[key] for key in keys])
        return made

    def _decode(self, paths: Sequence[str], tell: Tell | None) -> Iterator[tuple[str, Tensor]]:
        """The readable pictures (1, 3, H, W) among some paths; the others are remembered."""
        todo = [path for path in paths if path not in self.failed]
        with closing(decode_ahead(todo, self.num_workers, 1)) as loaded:
            for done, (path, item) in enumerate(zip(todo, loaded, strict=True), start=1):
                if item.pixels is None:
                    self.failed[path] = item.error.message if item.error else "unreadable"
                else:
                    pixels = torch.from_numpy(item.pixels).to(self.clip.device)
                    yield path, pixels.permute(2, 0, 1).unsqueeze(0)
                if tell:
                    tell(done, len(todo))

    def _crop(self, picture: Tensor, key: tuple[str, int, int]) -> Tensor:
        """One augmented view (1, 3, h, w), uint8."""
        path, seed, view = key
        size = self.clip.preprocess.size
        source = shrink_huge(picture, size, _SCALE[0])
        crops = draw_crops(draw_view(seed, path, view), source.shape[-2:], 1, _SCALE)
        return cut(source, crops, size, "bicubic")

    def _encode(self, views: Tensor) -> Tensor:
        """Unit features (n, E) on the CPU of bytes (n, 3, h, w)."""
        pixels = normalise(views.to(self.clip.device).float() / 255, self.clip.preprocess)
        return self.clip.encode_images(pixels).cpu()


def draw_view(seed: int, path: str, view: int) -> np.random.Generator:
    """The chance of one training view; never that of a test-time view."""
    text = f"{seed}\0train\0{path}\0{view}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
