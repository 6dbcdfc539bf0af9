"""Translate the preprocessing of a `transformers` model into open_clip's config.

It reads `preprocessor_config.json`, else `processor_config.json`. It knows a resize of the short
side with a centre crop and a resize to a square; anything else is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tpt.errors import ModelError
from tpt.model._config import PIXELS, number, several
from tpt.model._hf_json import FAMILIES, read_settings, refused, show, table

FILES = ("preprocessor_config.json", "processor_config.json")
_OPENAI = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
_HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
_FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_log = logging.getLogger(__name__)


def read_preprocess(folder: Path, name: str, family: str, image_size: int) -> dict[str, Any]:
    """Size, channel statistics and resizing, as open_clip's config has them.

    Raises:
        ModelError: a step or value that is not supported.
    """
    for file in FILES:
        if (folder / file).is_file():
            found = read_settings(folder / file, name)
            found = found if file == FILES[0] else table(found, "image_processor", name)
            if found:
                break
    else:
        _log.warning(
            '"%s" has no preprocessor_config.json; pictures get the default preprocessing of %s.',
            name,
            FAMILIES[family],
        )
        found = {}
    siglip = family == "siglip"
    statistics = _HALF if siglip else _OPENAI
    facts = {
        **{"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 3},
        **{"do_center_crop": not siglip, "rescale_factor": 1 / 255},
        "size": {"height": 224, "width": 224} if siglip else {"shortest_edge": 224},
        **{"crop_size": 224, "image_mean": statistics["mean"], "image_std": statistics["std"]},
    }
    if not found:
        facts |= {"size": image_size, "crop_size": image_size}
    facts |= {key: value for key, value in found.items() if key in facts and value is not None}
    if facts["do_resize"] is not True or facts["do_rescale"] is not True:
        raise refused(name, "do_resize or do_rescale", False)
    if found.get("do_pad"):
        raise refused(name, "do_pad", found["do_pad"])
    if not number(0.0039, 0.0040)(facts["rescale_factor"]):
        raise refused(name, "rescale_factor", facts["rescale_factor"])
    if not isinstance(facts["resample"], int) or facts["resample"] not in _FILTERS:
        raise refused(name, "resample", facts["resample"])
    if facts["do_normalize"] is not True:
        facts |= {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    for key, least in (("image_mean", -1e6), ("image_std", 1e-6)):
        if not several(number(least), 3)(facts[key]):
            raise refused(name, key, facts[key])
    return {
        "size": image_size,
        "mean": facts["image_mean"],
        "std": facts["image_std"],
        "interpolation": _FILTERS[facts["resample"]],
        # transformers cuts the centre of an odd border one pixel ahead of open_clip.
        "centre": "floor",
        "resize_mode": _resize_mode(facts, image_size, siglip, name),
    }


def _resize_mode(facts: Mapping[str, Any], image_size: int, siglip: bool, name: str) -> str:
    size, crop = facts["size"], facts["crop_size"]
    if PIXELS(size):  # a number alone: the short side where there is a crop, else both
        size = {"height": size, "width": size} if siglip else {"shortest_edge": size}
    crop = {"height": crop, "width": crop} if PIXELS(crop) else crop
    square = {"height": image_size, "width": image_size}
    cropped = facts["do_center_crop"] is True
    if size == square and (not cropped or crop == square):
        return "squash"
    if size == {"shortest_edge": image_size} and cropped and crop == square:
        return "shortest"
    raise ModelError(
        f'The preprocessing of "{name}" resizes to {show(size)} and crops to {show(crop)} for a '
        f"model that sees {image_size} pixels; expected a resize of the short side to "
        f"{image_size} with a centre crop, or to a square. Correct preprocessor_config.json."
    )
