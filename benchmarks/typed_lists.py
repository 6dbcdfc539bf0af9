"""How often the model picks the right word from short lists of everyday words.

    python benchmarks/typed_lists.py FOLDER             # class folders named by WordNet id
    python benchmarks/typed_lists.py FOLDER --model ViT-B-32 --pretrained openai

A list has names that people type ("plane", "mug", "cow"), or kinds of things ("bird", "kitchen").
Every image in a folder that a word covers is a pair of image and right word. The lists were written
before any answer was seen, and have not been changed since.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from scipy.stats import binomtest

import tpt

LISTS: dict[str, dict[str, str]] = {
    "kitchen things": {
        "frying pan": "n03400231",
        "toaster": "n04442312",
        "microwave": "n03761084",
        "fridge": "n04070727",
        "coffee maker": "n03063338",
        "corkscrew": "n03109150",
        "mug": "n03797390",
        "bowl": "n02880940",
        "dishwasher": "n03207941",
        "spatula": "n04270147",
        "ladle": "n03633091",
        "sieve": "n04332243",
        "can opener": "n02951585",
        "waffle iron": "n04542943",
        "stove": "n04330267",
        "wine bottle": "n04591713",
        "salt shaker": "n04131690",
        "jug": "n03950228",
    },
    "vehicles": {
        "bus": "n02924116",
        "car": "n02958343",
        "bicycle": "n02834778",
        "motorbike": "n03790512",
        "train": "n04468005",
        "plane": "n02691156",
        "boat": "n04530566",
        "golf cart": "n03445924",
        "snowmobile": "n04252077",
        "snow plough": "n04252225",
        "unicycle": "n04509417",
    },
    "animals": {
        "dog": "n02084071",
        "cat": "n02121808",
        "horse": "n02374451",
        "cow": "n02402425",
        "sheep": "n02411705",
        "pig": "n02395003",
        "rabbit": "n02324045",
        "hamster": "n02342885",
        "squirrel": "n02355227",
        "fox": "n02118333",
        "lion": "n02129165",
        "tiger": "n02129604",
        "bear": "n02131653",
        "elephant": "n02503517",
        "zebra": "n02391049",
        "camel": "n02437136",
        "hippo": "n02398521",
        "monkey": "n02484322",
        "koala": "n01882714",
        "panda": "n02510455",
        "otter": "n02444819",
        "seal": "n02076196",
        "whale": "n02062744",
    },
    "animals by kind": {
        "mammal": "n02084071 n02121808 n02374451 n02402425 n02324045 n02118333 n02131653 n02503517 "
        "n02437136 n02484322",
        "bird": "n01503061",
        "reptile": "n01662784 n01674464 n01726692",
        "amphibian": "n01639765",
        "fish": "n01443537 n01495701",
        "insect": "n02206856 n02219486 n02268443 n02274259 n02165456",
    },
    "sports": {
        "football": "n04254680",
        "basketball": "n02802426",
        "baseball": "n02799071",
        "tennis ball": "n04409515",
        "rugby ball": "n04118538",
        "volleyball": "n04540053",
        "golf ball": "n03445777",
        "table tennis ball": "n03942813",
        "skis": "n04228054",
        "dumbbell": "n03255030",
        "hockey puck": "n04019541",
        "punching bag": "n04023962",
    },
    "clothing": {
        "hat": "n03124170",
        "bow tie": "n02883205",
        "tie": "n04591157",
        "bra": "n02892767",
        "miniskirt": "n03770439",
        "swimsuit": "n03710721",
        "swimming trunks": "n04371430",
        "sunglasses": "n04356056",
        "helmet": "n03513137",
        "handbag": "n04026417",
        "backpack": "n02769748",
    },
    "food": {
        "pizza": "n07873807",
        "burger": "n07697100",
        "hot dog": "n07697537",
        "apple": "n07739125",
        "banana": "n07753592",
        "orange": "n07747607",
        "lemon": "n07749582",
        "strawberry": "n07745940",
        "pineapple": "n07753275",
        "mushroom": "n07734744",
        "cucumber": "n07718472",
        "cabbage": "n07714571",
        "pretzel": "n07695742",
        "bagel": "n07693725",
        "burrito": "n07880968",
        "ice lolly": "n07615774",
    },
    "rooms": {
        "kitchen": "n04070727 n04330267 n03207941",
        "living room": "n04256520",
        "office": "n03337140 n04004767 n03085013",
        "nursery": "n02766320",
        "laundry room": "n04554684",
        "gym": "n03255030 n03535780 n04023962 n02777292",
    },
}


def pairs(folder: Path, words: dict[str, str]) -> Iterator[tuple[Path, int]]:
    """Every picture with the place of its right word."""
    for number, ids in enumerate(words.values()):
        for wordnet_id in ids.split():
            here = folder / wordnet_id
            for path in sorted(here.iterdir()) if here.is_dir() else ():
                yield path, number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--pretrained")
    args = parser.parse_args()
    clip = tpt.load_clip(args.model, pretrained=args.pretrained)
    print("| list | words | pairs | right | 95 % interval |\n|---|---|---|---|---|")
    total_right = total = 0
    for title, words in LISTS.items():
        found = list(pairs(args.folder, words))
        if not found:
            continue
        method = tpt.ZeroShot(tpt.PromptEngine(clip, list(words)))
        records = list(tpt.stream([path for path, _ in found], method))
        answers = [r.predictions[0].index if r.predictions else -1 for r in records]
        right = sum(said == wanted for said, (_, wanted) in zip(answers, found, strict=True))
        print(line(title, len(words), right, len(found)))
        total_right, total = total_right + right, total + len(found)
    if not total:
        raise SystemExit(f"No picture of these lists in {args.folder}: expected n02084071/ ...")
    print(line("all", sum(map(len, LISTS.values())), total_right, total))


def line(title: str, words: int, right: int, count: int) -> str:
    interval = binomtest(right, count).proportion_ci(method="wilson")
    share = f"{100 * right / count:.1f} % | {100 * interval.low:.1f} to {100 * interval.high:.1f}"
    return f"| {title} | {words} | {count} | {share} |"


if __name__ == "__main__":
    main()
