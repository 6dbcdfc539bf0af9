"""Image features of labelled pictures: runs the frozen image tower as seldom as possible.

Training needs augmented views (CoOp: random resized crops of 8 to 100 % of the area, bicubic, and
flips), testing the plain one. View number v of a picture is drawn from the seed, the picture's path
and v alone. So a run that keeps R views and one that makes new views every epoch see the same
pictures for the first R epochs. They differ only by rounding: views that share a pass of the image
tower may differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from tpt.errors import MethodError
from tpt.images.resample import cut, normalise, preprocess_plain, shrink_huge
from tpt.images.rng import make_rng
from tpt.images.views import draw_crops
from tpt.model.clip import Clip
from tpt.model.transfers import send
from tpt.streaming._stages import describe_failure, settle
from tpt.streaming.loading import decode_ahead
from tpt.streaming.records import Failure

AUGMENTATIONS = ("crop", "none")
_SCALE = (0.08, 1.0)

Tell = Callable[[int, int], None]
"""Called with (pictures done, pictures in all) while something is encoded."""


class FeatureBank:
    """Encodes pictures, and keeps plain features, augmented views and the names of broken files.

    Args:
        augment: "crop" or "none", for the views of `augmented`.
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

        def view(path: str, picture: Tensor) -> Tensor:
            return preprocess_plain(picture, self.clip.preprocess).unsqueeze(0)

        for path, features in self._encode(self._views_of(todo, view, tell)):
            self._plain[path] = features[0]
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
            keep: store them, so that asking again costs nothing.
        """
        if self.augment == "none":
            plain = self.plain(paths, tell)
            return {path: feature.expand(len(views), -1) for path, feature in plain.items()}
        wanted = {path: [(path, seed, view) for view in views] for path in dict.fromkeys(paths)}
        todo = [p for p, keys in wanted.items() if not all(key in self._views for key in keys)]
        made: dict[str, Tensor] = {}

        def crop(path: str, picture: Tensor) -> Tensor:
            return self._crop(picture, wanted[path])

        for path, features in self._encode(self._views_of(todo, crop, tell)):
            made[path] = features
            if keep:
                self._views |= dict(zip(wanted[path], features.unbind(), strict=True))
        for path, keys in wanted.items():
            if path not in made and path not in self.failed:
                made[path] = torch.stack([self._views[key] for key in keys])
        return made

    def _views_of(
        self, paths: Sequence[str], make: Callable[[str, Tensor], Tensor], tell: Tell | None
    ) -> Iterator[tuple[str, Tensor]]:
        """The views (n, 3, h, w), uint8, that `make` makes of every picture (1, 3, H, W).

        A picture that cannot be read, or of which no views can be made, goes to `failed`.
        """
        todo = [path for path in paths if path not in self.failed]
        with closing(decode_ahead(todo, self.num_workers, 1, device=self.clip.device)) as loaded:
            for done, (path, item) in enumerate(zip(todo, loaded, strict=True), start=1):
                if item.picture is None:
                    self.failed[path] = item.error.message if item.error else "unreadable"
                else:
                    pixels = send(torch.from_numpy(item.picture.pixels), self.clip.device)
                    try:
                        views = make(path, pixels.permute(2, 0, 1).unsqueeze(0))
                    except Exception as error:
                        self.failed[path] = describe_failure(error, "Making views").message
                    else:
                        yield path, views
                if tell:
                    tell(done, len(todo))

    def _crop(self, picture: Tensor, keys: Sequence[tuple[str, int, int]]) -> Tensor:
        """Augmented views (n, 3, h, w), uint8, of one picture."""
        size = self.clip.preprocess.size
        source = shrink_huge(picture, size, _SCALE[0])
        views = []
        for path, seed, view in keys:
            crops = draw_crops(draw_view(seed, path, view), source.shape[-2:], 1, _SCALE)
            views.append(cut(source, crops, size, "bicubic"))
        return torch.cat(views)

    def _encode(self, views: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Unit features (n, E) on the CPU of every path's views (n, 3, h, w), uint8.

        On a CPU every picture has passes of its own, so that its numbers do not depend on what it
        shares a batch with; elsewhere the passes are filled up.
        """
        room = self.clip.images_a_pass(self.clip.micro_batch)
        waiting: list[tuple[str, Tensor]] = []
        for item in views:
            waiting.append(item)
            if sum(len(part) for _, part in waiting) >= room:
                yield from self._pass(waiting)
                waiting = []
        if waiting:
            yield from self._pass(waiting)

    def _pass(self, items: list[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        for (path, _), part in zip(items, settle(self._features, items, "Encoding"), strict=True):
            if isinstance(part, Failure):
                self.failed[path] = part.message
            elif bool(part.isfinite().all()):
                yield path, part
            else:
                self.failed[path] = (
                    f'The image tower gave NaN or infinite features for "{path}". Try --precision '
                    "fp32 or bf16."
                )

    def _features(self, items: Sequence[tuple[str, Tensor]]) -> list[Tensor]:
        """Unit features (n, E) of every item's views, in one pass."""
        pixels = torch.cat([part for _, part in items]).to(self.clip.device).float()
        features = self.clip.encode_images(normalise(pixels, self.clip.preprocess)).cpu()
        return list(features.split([len(part) for _, part in items]))


def draw_view(seed: int, path: str, view: int) -> np.random.Generator:
    """The random generator of one training view; a test-time view has another."""
    return make_rng(seed, "train", path, view)
