"""The prompts that the text tower is taught, and the style that each one means."""

from __future__ import annotations

import open_clip

Mix = dict[str, float]
"""Style -> how much of it."""

NEUTRAL = (
    "a photo of a {}.", "a photo of a {}", "a photo of an {}.", "a photo of the {}.", "{}", "{}.",
    "a {}", "a {}.", "the {}.", "an image of a {}.", "a picture of a {}.", "a picture of a {}",
    "an image of {}", "a photo of {}.", "a photo of {}", "there is a {} in the photo.",
    "this is a {}.", "this is a photo of a {}.", "a snapshot of a {}.", "a real photo of a {}.",
    "a centered satellite photo of {}.", "{} texture.", "a photo of a {}, a type of flower.",
    "a photo of a {}, a type of pet.", "a type of pet, a photo of a {}.",
    "a photo of {}, a type of food.", "a photo of a {}, a type of aircraft.",
    "a photo of a person doing {}.", "a photo of a {}, a type of animal.", "my {}.",
    "a photo of one {}.", "two {}.", "a close view of a {}.",
)  # fmt: skip

STYLED: dict[str, tuple[str, ...]] = {
    "blur": ("a blurry photo of a {}.", "a blurred picture of a {}.",
             "an out of focus photo of a {}."),
    "noise": ("a noisy photo of a {}.", "a grainy photo of a {}.", "a noisy image of the {}."),
    "lowres": ("a low resolution photo of a {}.", "a pixelated photo of a {}.",
               "a thumbnail of a {}."),
    "jpeg": ("a compressed photo of a {}.", "a jpeg corrupted photo of a {}."),
    "dark": ("a dark photo of a {}.", "a photo of a {} at night."),
    "bright": ("a bright photo of a {}.", "an overexposed photo of a {}."),
    "lowcontrast": ("a low contrast photo of a {}.", "a faded photo of a {}.",
                    "a pale photo of a {}."),
    "fog": ("a foggy photo of a {}.", "a photo of a {} in fog.", "a hazy photo of a {}."),
    "gray": ("a black and white photo of a {}.", "a grayscale photo of a {}."),
    "sketch": ("a sketch of a {}.", "a pencil sketch of a {}.", "a line drawing of a {}.",
               "a drawing of a {}.", "a doodle of a {}."),
    "cartoon": ("a cartoon of a {}.", "a cartoon {}.", "a comic of a {}.",
                "an illustration of a {}.", "clip art of a {}."),
    "painting": ("a painting of a {}.", "an oil painting of a {}.", "an artwork of a {}."),
    "closeup": ("a close-up photo of a {}.", "a photo of a part of a {}."),
    "far": ("a photo of a {} far away.", "a photo of a small {}.", "a distant {}."),
}  # fmt: skip

WORDS: dict[str, Mix] = {
    "bad": {"lowres": 0.25, "blur": 0.25, "noise": 0.15, "jpeg": 0.15},
    "blurry": {"blur": 1.0},
    "low resolution": {"lowres": 1.0},
    "pixelated": {"lowres": 1.0},
    "dark": {"dark": 1.0},
    "bright": {"bright": 1.0},
    "black and white": {"gray": 1.0},
    "jpeg corrupted": {"jpeg": 1.0},
    "close-up": {"closeup": 1.0},
    "cropped": {"closeup": 0.6},
    "large": {"closeup": 0.4},
    "small": {"far": 0.8},
    "hard to see": {"far": 0.4, "dark": 0.2, "lowcontrast": 0.3},
    "sketch": {"sketch": 1.0},
    "drawing": {"sketch": 0.8, "painting": 0.1},
    "doodle": {"sketch": 1.0},
    "tattoo": {"sketch": 0.6, "painting": 0.2},
    "painting": {"painting": 1.0},
    "art of": {"painting": 0.6, "cartoon": 0.2},
    "rendering": {"cartoon": 0.4, "painting": 0.2},
    "rendition": {"painting": 0.5},
    "cartoon": {"cartoon": 1.0},
    "graffiti": {"painting": 0.5, "cartoon": 0.4},
    "video game": {"cartoon": 0.5, "lowres": 0.2},
    "sculpture": {"gray": 0.3},
    "origami": {"cartoon": 0.3},
    "embroidered": {"painting": 0.3, "noise": 0.2},
    "plastic": {"cartoon": 0.2},
    "toy": {"cartoon": 0.2},
    "plushie": {"cartoon": 0.2},
}
"""Words of CLIP's own ImageNet templates."""


def templates() -> list[tuple[str, Mix]]:
    """All templates; those of `NEUTRAL` first, the first of them the one that is used most."""
    rows: dict[str, Mix] = {template: {} for template in NEUTRAL}
    for style, styled in STYLED.items():
        rows.update({template: {style: 1.0} for template in styled})
    for write in open_clip.OPENAI_IMAGENET_TEMPLATES:
        rows.setdefault(write("{}"), _meaning(write("{}")))
    return list(rows.items())


def _meaning(template: str) -> Mix:
    mix: Mix = {}
    for word, styles in WORDS.items():
        if word in template:
            for style, weight in styles.items():
                mix[style] = max(mix.get(style, 0), weight)
    return mix
