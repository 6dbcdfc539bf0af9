"""What CoOp's eleven data sets need beyond their files: a template, and corrected class names.

From the CoOp paper (2109.01134, appendix A) and the public program's data set files: hand-crafted
templates, corrections of names in folders and split files, folders to ignore, and where a split
file's pictures lie.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tpt.data.imagenet import imagenet_names, is_wnid
from tpt.errors import MethodError, SourceError, suggest

DEFAULT_TEMPLATE = "a photo of a {}."


@dataclass(frozen=True)
class Preset:
    """One data set's conventions."""

    title: str  # as the papers write it; also in split_zhou_<title>.json
    template: str = DEFAULT_TEMPLATE
    images: str = ""  # the folder of the pictures beside the split file
    renames: Mapping[str, str] = field(default_factory=dict)
    rename: Callable[[str], str] | None = None  # for those that follow a rule
    ignored: frozenset[str] = frozenset()
    epochs: int | None = None  # whatever the number of shots

    def class_name(self, label: str) -> str:
        """The class name that a folder's or a file's label stands for."""
        if label in self.renames:
            return self.renames[label]
        return self.rename(label) if self.rename else label


def _year_first(name: str) -> str:
    """ "Audi S4 Sedan 2012" -> "2012 Audi S4 Sedan", once."""
    match = re.fullmatch(r"(.+) ((?:19|20)\d\d)", name)
    return f"{match[2]} {match[1]}" if match else name


def _split_capitals(name: str) -> str:
    """ "ApplyEyeMakeup" -> "Apply_Eye_Makeup"."""
    parts = re.findall("[A-Z][^A-Z_]*", name)
    return "_".join(parts) if "".join(parts) == name else name


def _scene_backwards(name: str) -> str:
    """ "/a/abbey" -> "abbey", "/b/basement/indoor" -> "indoor basement"."""
    parts = [part for part in name.strip("/").split("/") if part]
    if len(parts) > 1 and len(parts[0]) == 1:
        parts = parts[1:]
    return " ".join(reversed(parts)) if "/" in name else name


_CALTECH = {
    "airplanes": "airplane",
    "Faces": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
}
_EUROSAT = {
    "AnnualCrop": "Annual Crop Land",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "SeaLake": "Sea or Lake",
}

PRESETS: Mapping[str, Preset] = {
    "imagenet": Preset("ImageNet", epochs=50),
    "caltech101": Preset(
        "Caltech101",
        images="101_ObjectCategories",
        renames=_CALTECH,
        ignored=frozenset({"BACKGROUND_Google", "Faces_easy"}),
    ),
    "oxford_pets": Preset(
        "OxfordPets", "a photo of a {}, a type of pet.", "images", rename=str.lower
    ),
    "stanford_cars": Preset("StanfordCars", rename=_year_first),
    "oxford_flowers": Preset("OxfordFlowers", "a photo of a {}, a type of flower.", "jpg"),
    "food101": Preset("Food101", "a photo of {}, a type of food.", "images"),
    "fgvc_aircraft": Preset("FGVCAircraft", "a photo of a {}, a type of aircraft.", "images"),
    "sun397": Preset("SUN397", images="SUN397", rename=_scene_backwards),
    "dtd": Preset("DescribableTextures", "{} texture.", "images"),
    "eurosat": Preset("EuroSAT", "a centered satellite photo of {}.", "2750", renames=_EUROSAT),
    "ucf101": Preset(
        "UCF101", "a photo of a person doing {}.", "UCF-101-midframes", rename=_split_capitals
    ),
}
"""The eleven data sets by the names that `--preset` takes."""


def find_preset(name: str | None) -> Preset | None:
    """The preset of that name.

    Raises:
        MethodError: no such preset.
    """
    if name is None:
        return None
    key = name.lower().replace("-", "_")
    if key not in PRESETS:
        raise MethodError(
            f'Unknown preset "{name}".{suggest(key, PRESETS)} Expected one of {", ".join(PRESETS)}.'
        )
    return PRESETS[key]


def preset_of_split(file_name: str) -> str | None:
    """The preset that a split file's name implies: "split_zhou_Caltech101.json"."""
    match = re.fullmatch(r"split_zhou_(\w+)\.json", file_name)
    return next((k for k, p in PRESETS.items() if match and p.title == match[1]), None)


def name_labels(labels: Sequence[str], preset: Preset | None) -> list[str]:
    """The preset's class names for sorted labels.

    All 1,000 WordNet ids of ImageNet, sorted, are the standard order of its classes, so open_clip's
    list of names fits them. It does not fit a part of them.

    Raises:
        SourceError: the preset is imagenet, and the WordNet ids are not all 1,000.
    """
    if preset is None:
        return list(labels)
    if preset.title == "ImageNet" and all(map(is_wnid, labels)):
        names = imagenet_names()
        if len(labels) != len(names):
            raise SourceError(
                f"The preset imagenet names all {len(names):,} WordNet ids by their order, but "
                f"{len(labels)} came. Name them yourself: --classes n01440764=tench,... or a file "
                "of such lines."
            )
        return list(names)
    return [preset.class_name(label) for label in labels]
