"""What models of every format answer: run here and, as a program, where only the core packages are.

    python tests/model/plain_answers.py FOLDER

FOLDER holds a model a name: folders of transformers and of open_clip, archives of OpenAI's.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import tpt
from tpt.model.convert import convert_model

CLASSES = ["cat", "golden retriever", "naïve café"]


def answer(path: Path) -> Any:
    """Digests, class features and what TPT answers; or why the model is refused."""
    name = f"local-dir:{path}" if path.is_dir() else str(path)
    try:
        clip = tpt.load_clip(name, device="cpu", precision="fp32")
    except tpt.ModelError as error:
        return str(error)
    pictures = torch.rand(2, 3, 50, 40, generator=torch.Generator().manual_seed(0))
    engine = tpt.PromptEngine(clip, CLASSES)
    records = list(tpt.stream(list(pictures), tpt.TPT(engine), views=tpt.Views(clip, n=4)))
    return {
        "digest": clip.digest,
        "converted": convert(clip),
        "class features": engine.class_features().tolist(),
        "scores": [[p.score for p in record.predictions] for record in records],
    }


def convert(clip: tpt.Clip) -> str | None:
    """The digest of the model in open_clip's format; or why it is not written."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "converted"
        try:
            convert_model(clip, target)
        except tpt.ModelError as error:
            return str(error)
        return tpt.load_clip(f"local-dir:{target}", device="cpu", precision="fp32").digest


def answer_all(folder: Path) -> dict[str, Any]:
    """The answer of every model in a folder, by its name."""
    return {path.name: answer(path) for path in sorted(folder.iterdir())}


if __name__ == "__main__":
    answers = answer_all(Path(sys.argv[1]))
    print(json.dumps({"answers": answers, "imported": "transformers" in sys.modules}))
