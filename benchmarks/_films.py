"""Films made of images: one shot per image that pans over it, with noise, and hard cuts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def make_film(
    path: Path | str,
    pictures: Sequence[Path],
    frames: int = 25,
    fps: int = 25,
    size: tuple[int, int] = (192, 160),
    noise: float = 6.0,
    pan: float = 0.4,
    seed: int = 0,
) -> list[int]:
    """Write a film of one shot a picture; the numbers of the frames with which shots begin.

    Args:
        path: of the film; its ending says the container.
        pictures: one a shot.
        frames: of a shot.
        fps: frames a second.
        size: (width, height).
        noise: standard deviation in grey levels, drawn anew for each frame.
        pan: share of the picture's width that a shot walks over.
        seed: of the noise.
    """
    import av

    random = np.random.RandomState(seed)
    width, height = size
    with av.open(str(path), "w") as film:
        stream: Any = film.add_stream("mpeg4", rate=fps, options={"qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            wide = int(width * (1 + pan))
            with Image.open(picture) as image:
                pixels = np.asarray(image.convert("RGB").resize((wide, height)), np.float32)
            for number in range(frames):
                left = (wide - width) * number // max(1, frames - 1)
                noisy = pixels[:, left : left + width] + random.normal(0, noise, (height, width, 3))
                frame = av.VideoFrame.from_ndarray(noisy.clip(0, 255).astype(np.uint8), "rgb24")
                film.mux(stream.encode(frame))
        film.mux(stream.encode())
    return [frames * number for number in range(len(pictures))]
