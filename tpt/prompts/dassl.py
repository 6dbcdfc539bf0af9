"""Output folders of Dassl, the program under CoOp and its relatives: checkpoint and settings.

    seed1/log.txt
    seed1/prompt_learner/checkpoint, model.pth.tar-50

The log begins with the run's config, which has facts that the checkpoint lacks: the place of the
class name, the words the training started from, the data set, the shots, the seed, the backbone.
The text may come from anyone, so only these facts are read, and only if their values are plausible.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tpt.errors import PromptError
from tpt.prompts.prompt_info import POSITIONS

_LEARNERS = ("prompt_learner", "VLPromptLearner", "MultiModalPromptLearner")
_LOGS = ("log.txt", "config.yaml")
_LARGEST = 2**18  # bytes that are read of a log; the config comes first
_LINE = re.compile(r"( *)([A-Z][A-Z0-9_]*):(?: (.*))?")

_BACKBONES = re.compile(r"RN(50|101|50x4|50x16|50x64)|ViT-(B/32|B/16|L/14|L/14@336px)")

Tree = dict[str, Any]


def find_checkpoint(folder: Path) -> Path:
    """The checkpoint of an output folder: the one of the last epoch, else the best.

    Raises:
        PromptError: the folder has none.
    """
    homes = [folder / name for name in _LEARNERS if (folder / name).is_dir()] or [folder]
    found = [file for home in homes for file in home.glob("model*.pth.tar*") if file.is_file()]
    if not found:
        raise PromptError(
            f'The prompt file "{folder}" cannot be read: it is a folder without a checkpoint. '
            "Expected one that Dassl wrote, with prompt_learner/model.pth.tar-50 in it, or a file."
        )
    return max(found, key=_epoch)


def _epoch(file: Path) -> tuple[int, str]:
    number = re.fullmatch(r"model\.pth\.tar-(\d{1,9})", file.name)
    return (int(number[1]) if number else -1), file.name


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """The facts about a prompt in the log beside its checkpoint, by their names in prompt files.

    Those of position, words, dataset, shots and seed that the log has; none without a log.
    """
    tree = _read_log(checkpoint)
    trainer = _table(tree, "TRAINER")
    name = str(trainer.get("NAME") or "").upper()
    # KgCoOp and ProGrad keep their settings under CoOp's name.
    section = _table(trainer, name) or _table(trainer, "COOP")
    facts: dict[str, Any] = {}
    if section.get("CLASS_TOKEN_POSITION") in POSITIONS:
        facts["position"] = section["CLASS_TOKEN_POSITION"]
    elif name == "COCOOP":
        facts["position"] = "end"  # the only one that it has
    words = str(section.get("CTX_INIT") or "").replace("_", " ").strip()
    if words and words.isprintable() and len(words) < 500:
        facts["words"] = words
    dataset = _table(tree, "DATASET")
    if isinstance(dataset.get("NAME"), str) and dataset["NAME"].isprintable():
        facts["dataset"] = dataset["NAME"]
    for key, value in (("shots", dataset.get("NUM_SHOTS")), ("seed", tree.get("SEED"))):
        if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value) and int(value) >= 1:
            facts[key] = int(value)
    return facts


def find_backbone(checkpoint: Path) -> str | None:
    """open_clip's name of the model in the log beside a checkpoint; its weights are OpenAI's."""
    backbone = _table(_table(_read_log(checkpoint), "MODEL"), "BACKBONE").get("NAME")
    if not isinstance(backbone, str) or not _BACKBONES.fullmatch(backbone):
        return None
    return backbone.replace("/", "-").replace("@336px", "-336")


def _table(tree: Tree, key: str) -> Tree:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}


def _read_log(checkpoint: Path) -> Tree:
    """The config in the log of the run's folder or of the checkpoint's, as nested tables."""
    for home in (checkpoint.parent.parent, checkpoint.parent):
        for name in _LOGS:
            file = home / name
            if file.is_file() and not file.is_symlink():
                with file.open("rb") as opened:
                    text = opened.read(_LARGEST).decode("utf-8", "replace")
                return _parse(text.partition("** Config **")[2] or text)
    return {}


def _parse(text: str) -> Tree:
    """Nested tables of `KEY: value` lines, as yacs prints a config; other lines are skipped."""
    root: Tree = {}
    open_tables: list[tuple[int, Tree]] = [(-1, root)]
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        indent, key, value = len(found[1]), found[2], (found[3] or "").strip()
        while len(open_tables) > 1 and open_tables[-1][0] >= indent:
            open_tables.pop()
        table = open_tables[-1][1]
        if value:
            table.setdefault(key, value.strip("'\""))
        elif len(open_tables) < 10:
            below = table.setdefault(key, {})
            if isinstance(below, dict):
                open_tables.append((indent, below))
    return root
