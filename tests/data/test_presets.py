"""The presets say what the CoOp paper and the public program's data set files say."""

from __future__ import annotations

import json

import pytest
from data.set_files import touch, write
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from refusals import refusal

from tpt.data.presets import DEFAULT_TEMPLATE, PRESETS, find_preset, name_labels, preset_of_split
from tpt.data.training_sets import check_training_set, read_training_set
from tpt.errors import MethodError, SourceError

TEMPLATES = {
    "imagenet": "a photo of a {}.",
    "caltech101": "a photo of a {}.",
    "oxford_pets": "a photo of a {}, a type of pet.",
    "stanford_cars": "a photo of a {}.",
    "oxford_flowers": "a photo of a {}, a type of flower.",
    "food101": "a photo of {}, a type of food.",
    "fgvc_aircraft": "a photo of a {}, a type of aircraft.",
    "sun397": "a photo of a {}.",
    "dtd": "{} texture.",
    "eurosat": "a centered satellite photo of {}.",
    "ucf101": "a photo of a person doing {}.",
}
PUBLIC_SPLITS = {  # split file -> preset, folder of the pictures beside it
    "split_zhou_Caltech101.json": ("caltech101", "101_ObjectCategories"),
    "split_zhou_OxfordPets.json": ("oxford_pets", "images"),
    "split_zhou_StanfordCars.json": ("stanford_cars", ""),
    "split_zhou_OxfordFlowers.json": ("oxford_flowers", "jpg"),
    "split_zhou_Food101.json": ("food101", "images"),
    "split_zhou_SUN397.json": ("sun397", "SUN397"),
    "split_zhou_DescribableTextures.json": ("dtd", "images"),
    "split_zhou_EuroSAT.json": ("eurosat", "2750"),
    "split_zhou_UCF101.json": ("ucf101", "UCF-101-midframes"),
}


def write_split(path: str, train: list[tuple[str, int, str]]) -> str:
    return write(path, json.dumps({"train": train, "val": [], "test": []}))


def make_wnids(count: int) -> list[str]:
    return [f"n{1440764 + 13 * number:08d}" for number in range(count)]


# --- templates and names of presets ---


def test_the_eleven_published_templates() -> None:
    assert {name: preset.template for name, preset in PRESETS.items()} == TEMPLATES
    assert DEFAULT_TEMPLATE == "a photo of a {}."


def test_imagenet_alone_trains_50_epochs_whatever_the_shots() -> None:
    assert {name: preset.epochs for name, preset in PRESETS.items() if preset.epochs} == {
        "imagenet": 50
    }


@pytest.mark.parametrize("name", ["oxford_pets", "oxford-pets", "Oxford_Pets", "OXFORD-PETS"])
def test_presets_are_found_however_they_are_written(name: str) -> None:
    assert find_preset(name) is PRESETS["oxford_pets"]


def test_no_preset_is_none() -> None:
    assert find_preset(None) is None


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("caltech", "caltech101"), ("Caltech-101", "caltech101"), ("oxford_pet", "oxford_pets")],
)
def test_an_unknown_preset_has_a_suggestion(wrong: str, right: str) -> None:
    message = refusal(MethodError, find_preset, wrong)
    assert message.startswith(f'Unknown preset "{wrong}". Did you mean "{right}"')
    assert message.endswith("Expected one of " + ", ".join(TEMPLATES) + ".")


@pytest.mark.parametrize("file_name", PUBLIC_SPLITS)
def test_the_public_split_files_tell_their_preset_and_folder(file_name: str) -> None:
    name, images = PUBLIC_SPLITS[file_name]
    assert preset_of_split(file_name) == name
    assert PRESETS[name].images == images


@pytest.mark.parametrize(
    "file_name",
    ["split_zhou_Mine.json", "split_Caltech101.json", "Caltech101.json", "caltech101", ""],
)
def test_other_names_tell_no_preset(file_name: str) -> None:
    assert preset_of_split(file_name) is None


# --- class names put right ---


@pytest.mark.parametrize(
    ("preset", "label", "name"),
    [
        ("caltech101", "airplanes", "airplane"),
        ("caltech101", "Faces", "face"),
        ("caltech101", "Leopards", "leopard"),
        ("caltech101", "Motorbikes", "motorbike"),
        ("caltech101", "car_side", "car_side"),
        ("eurosat", "AnnualCrop", "Annual Crop Land"),
        ("eurosat", "Forest", "Forest"),
        ("eurosat", "HerbaceousVegetation", "Herbaceous Vegetation Land"),
        ("eurosat", "Highway", "Highway or Road"),
        ("eurosat", "Industrial", "Industrial Buildings"),
        ("eurosat", "Pasture", "Pasture Land"),
        ("eurosat", "PermanentCrop", "Permanent Crop Land"),
        ("eurosat", "Residential", "Residential Buildings"),
        ("eurosat", "River", "River"),
        ("eurosat", "SeaLake", "Sea or Lake"),
        ("oxford_pets", "Yorkshire_Terrier", "yorkshire_terrier"),
        ("stanford_cars", "Audi S4 Sedan 2012", "2012 Audi S4 Sedan"),
        ("stanford_cars", "Plymouth Neon Coupe 1999", "1999 Plymouth Neon Coupe"),
        ("stanford_cars", "Chrysler 300 SRT-8 2010", "2010 Chrysler 300 SRT-8"),
        ("ucf101", "ApplyEyeMakeup", "Apply_Eye_Makeup"),
        ("ucf101", "YoYo", "Yo_Yo"),
        ("ucf101", "Archery", "Archery"),
        ("sun397", "/a/abbey", "abbey"),
        ("sun397", "/a/apartment_building/outdoor", "outdoor apartment_building"),
        ("sun397", "b/basement/indoor", "indoor basement"),
        ("food101", "apple_pie", "apple_pie"),
    ],
)
def test_labels_become_class_names(preset: str, label: str, name: str) -> None:
    """And a name stays as it is: split files hold the names put right already."""
    assert PRESETS[preset].class_name(label) == name
    assert PRESETS[preset].class_name(name) == name


def test_labels_without_a_preset_are_names() -> None:
    assert name_labels(["Faces", "n01440764"], None) == ["Faces", "n01440764"]


def test_caltechs_folders() -> None:
    names = ["BACKGROUND_Google", "Faces_easy", "Faces", "airplanes", "yin_yang"]
    touch(*(f"{name}/image_0001.jpg" for name in names))
    dataset = check_training_set(read_training_set(".", preset="caltech101"))
    assert dataset.classes == ("face", "airplane", "yin_yang")  # sorted by folder
    assert dataset.name == "Caltech101"
    assert dataset.notes == ("Left out, as no class: BACKGROUND_Google, Faces_easy.",)
    assert len(read_training_set(".").classes) == 5


def test_an_ignored_folder_may_be_empty() -> None:
    touch("BACKGROUND_Google/tmp", "Faces/1.jpg", "ant/1.jpg")
    assert read_training_set(".", preset="caltech101").classes == ("face", "ant")


def test_a_split_files_name_chooses_the_preset() -> None:
    touch("101_ObjectCategories/Faces/image_0001.jpg")
    train = [("Faces/image_0001.jpg", 0, "Faces"), ("ant/image_0001.jpg", 1, "ant")]
    dataset = read_training_set(write_split("split_zhou_Caltech101.json", train))
    assert dataset.preset is PRESETS["caltech101"]
    assert (dataset.name, dataset.classes) == ("Caltech101", ("face", "ant"))


def test_a_preset_that_is_named_wins_over_the_file_name() -> None:
    touch("1.jpg")
    train = [("1.jpg", 0, "Forest"), ("2.jpg", 1, "SeaLake")]
    path = write_split("split_zhou_Caltech101.json", train)
    dataset = read_training_set(path, preset="eurosat")
    assert (dataset.name, dataset.classes) == ("EuroSAT", ("Forest", "Sea or Lake"))


def test_a_csv_files_labels_are_put_right_too() -> None:
    path = write("eurosat.csv", "path,label\n1.jpg,SeaLake\n2.jpg,Highway\n")
    dataset = read_training_set(path, preset="eurosat")
    assert dataset.classes == ("Highway or Road", "Sea or Lake")


# --- ImageNet's WordNet ids ---


def test_exactly_1000_wordnet_ids_take_the_standard_names() -> None:
    lines = [f"{wnid}/1.jpg,{wnid}" for wnid in reversed(make_wnids(1000))]
    path = write("imagenet.csv", "\n".join(["path,label", *lines]))
    dataset = check_training_set(read_training_set(path, preset="imagenet"))
    assert dataset.classes == tuple(IMAGENET_CLASSNAMES)
    assert dataset.train[-1].label == 0  # n01440764, the tench
    assert dataset.classes[0] == "tench"


@pytest.mark.parametrize("count", [2, 999, 1001])
def test_a_part_of_imagenet_is_refused(count: int) -> None:
    message = refusal(SourceError, name_labels, make_wnids(count), PRESETS["imagenet"])
    assert f"names all 1,000 WordNet ids by their order, but {count} came." in message
    assert message.endswith("--classes n01440764=tench,... or a file of such lines.")


def test_imagenet_folders_with_names_keep_them() -> None:
    assert name_labels(["goldfish", "tench"], PRESETS["imagenet"]) == ["goldfish", "tench"]
