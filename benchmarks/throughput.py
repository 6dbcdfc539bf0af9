"""Images per second of `tpt predict` and `tpt eval`, from JPEGs on disk to records on disk.

    python benchmarks/throughput.py                     # ViT-B/16, random weights, 100 classes
    python benchmarks/throughput.py --model lite --images 24 --classes 10
    python benchmarks/throughput.py --device cuda --precision fp32 --images 400

The program first writes two folders from the example images, one of 12-megapixel JPEGs and one of
small ones, all different. Each command runs over a part of a folder and over all of it, in a
process of its own. The difference gives the rate without the start-up time, which is printed too.
Each stage is also measured alone, one image after the other. Where stages overlap, an image takes
less than their sum; the ratio of the two is printed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import open_clip
from _common import clock
from PIL import Image

import tpt
from tpt.images.decode import load_picture
from tpt.methods import Method
from tpt.methods.registry import make_method
from tpt.streaming.batches import adapt_batch, make_record
from tpt.streaming.loading import Loaded

PICTURES = sorted((Path(__file__).parent.parent / "examples" / "images").glob("*-small.jpg"))
STAGES = ("decode", "views", "tower", "method", "describing")


def write_pictures(folder: Path, count: int, size: tuple[int, int]) -> None:
    """JPEGs of `size`, each of other content, in two folders: an evaluation needs two classes."""
    for place in range(count):
        with Image.open(PICTURES[place % len(PICTURES)]) as opened:
            picture = opened.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        picture.putpixel((0, 0), (place % 256, place // 256, 0))
        # Grain, without which a smooth picture decodes faster than a photograph.
        grain = Image.effect_noise(size, 24).convert("RGB")
        home = folder / ("cat" if place % 2 else "dog")
        home.mkdir(parents=True, exist_ok=True)
        Image.blend(picture, grain, 0.15).save(home / f"{place:05}.jpg", quality=90)


def run_command(words: list[str]) -> float:
    """Seconds of a command, which must succeed."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "cli", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"tpt {words[0]} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - started


def measure_command(words: list[str], folder: Path, few: int, count: int) -> tuple[float, float]:
    """(seconds a picture, seconds of the start) of a command over a folder of `count` pictures."""
    part = folder.with_name(f"{folder.name}-{words[0]}-part")
    for file in sorted(folder.rglob("*.jpg"), key=lambda file: file.name)[:few]:
        (part / file.parent.name).mkdir(parents=True, exist_ok=True)
        (part / file.parent.name / file.name).hardlink_to(file)
    seconds = []
    for place in (part, folder):
        output = place.with_name(f"{place.name}-{words[0]}-records")
        own = ["--recursive"] if words[0] == "predict" else []
        seconds.append(
            run_command([words[0], str(place), *own, *words[1:], "--output", str(output)])
        )
    each = (seconds[1] - seconds[0]) / (count - few)
    return each, seconds[0] - few * each


def measure_stages(folder: Path, args: argparse.Namespace, names: list[str]) -> dict[str, float]:
    """Seconds a picture of every stage alone, the median of a few pictures."""
    clip = tpt.load_clip(args.model, args.pretrained, device=args.device, precision=args.precision)
    method = make_method(args.method, tpt.PromptEngine(clip, names))
    make = tpt.Views(clip, n=args.views)
    files = sorted(folder.rglob("*.jpg"))[: args.repeats]
    _time_stages(files[0], clip, method, make)  # the first one warms up
    each = [_time_stages(file, clip, method, make) for file in files]
    return dict(zip(STAGES, map(statistics.median, zip(*each, strict=True)), strict=True))


def _time_stages(file: Path, clip: tpt.Clip, method: Method, make: tpt.Views) -> list[float]:
    picture, decode = clock(lambda: load_picture(file))
    views, making = clock(lambda: make([picture]))
    features, tower = clock(lambda: clip.encode_views(views))
    _, adapting = clock(lambda: method.adapt_features(features))
    item = Loaded(0, str(file), picture)
    (outcome,) = adapt_batch([item], method, make, {0: features[0]}).values()
    _, telling = clock(lambda: make_record(item, outcome, method, 5, 0.0).to_json())
    return [decode, making, tower, adapting, telling]


def show(name: str, each: float, start: float, stages: dict[str, float]) -> None:
    print(
        f"  {name}: {1 / each:.2f} pictures a second ({each * 1e3:.0f} ms each; start {start:.1f} "
        f"s); the stages alone are {sum(stages.values()) / each:.2f} of it",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--pretrained", default="random")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--method", default="tpt")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--images", type=int, default=12, help="images per folder")
    parser.add_argument("--few", type=int, default=2, help="images in the part of a folder")
    parser.add_argument("--repeats", type=int, default=3, help="images whose stages are timed")
    parser.add_argument("--sizes", nargs="+", default=["4000x3000", "500x375"])
    args = parser.parse_args()
    args.pretrained = None if args.model == "lite" else args.pretrained
    names = list(dict.fromkeys(["cat", "dog", *open_clip.IMAGENET_CLASSNAMES]))[: args.classes]
    print(
        f"{args.model}, {args.precision}, {args.views} views, {len(names)} classes, {args.method}"
    )
    with tempfile.TemporaryDirectory() as temporary:
        listed = Path(temporary) / "names.txt"
        listed.write_text("\n".join(names) + "\n")
        words = ["--model", args.model, "--device", args.device, "--precision", args.precision]
        words += ["--views", str(args.views), "--classes", str(listed), "--quiet"]
        words += ["--pretrained", args.pretrained] if args.pretrained else []
        for size in args.sizes:
            width, height = map(int, size.split("x"))
            folder = Path(temporary) / size
            write_pictures(folder, args.images, (width, height))
            stages = measure_stages(folder, args, names)
            told = ", ".join(f"{stage} {stages[stage] * 1e3:.1f} ms" for stage in STAGES)
            print(f"{args.images} JPEGs of {size}: {told}", flush=True)
            for command in (["predict", "--method"], ["eval", "--methods"]):
                asked = [*command, args.method, *words]
                each, start = measure_command(asked, folder, args.few, args.images)
                show(f"tpt {command[0]}", each, start, stages)


if __name__ == "__main__":
    main()
