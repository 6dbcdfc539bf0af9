"""WordNet 3.0's nouns, read from the folder that Debian's `wordnet-base` installs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

FOLDER = Path("/usr/share/wordnet")
ANIMAL, ARTIFACT, BODY, FOOD, OBJECT, PERSON, PLANT = 5, 6, 8, 13, 17, 18, 20
VISIBLE = (ANIMAL, ARTIFACT, BODY, FOOD, OBJECT, PERSON, PLANT)
"""Lexicographer files of things that a picture can show."""


@dataclass(frozen=True)
class Synset:
    """One meaning; `offset` is ImageNet's id without its n."""

    offset: str
    lexfile: int
    words: tuple[str, ...]
    hypernyms: tuple[str, ...]
    gloss: str

    @property
    def title(self) -> str:
        """The first three words and what they mean, as a sentence encoder reads it."""
        return (
            ", ".join(word.replace("_", " ") for word in self.words[:3]) + ": " + self.gloss[:110]
        )

    @property
    def name(self) -> str:
        return self.words[0].replace("_", " ")


@dataclass(frozen=True)
class WordNet:
    """Synsets by offset, a word's meanings (most frequent first), a sense's uses in tagged text."""

    synsets: dict[str, Synset]
    senses: dict[str, list[str]]
    uses: dict[tuple[str, int], int]
    _ancestors: dict[str, frozenset[str]] = field(default_factory=dict)

    def __getitem__(self, offset: str) -> Synset:
        return self.synsets[offset]

    def ancestors(self, offset: str) -> frozenset[str]:
        """All hypernyms of a synset, without itself."""
        if offset not in self._ancestors:
            above = self.synsets[offset].hypernyms
            higher = (self.ancestors(parent) for parent in above)
            self._ancestors[offset] = frozenset(above).union(*higher)
        return self._ancestors[offset]

    @cached_property
    def children(self) -> dict[str, list[str]]:
        below = defaultdict(list)
        for synset in self.synsets.values():
            for parent in synset.hypernyms:
                below[parent].append(synset.offset)
        return dict(below)

    def visible_sense(self, word: str) -> str | None:
        """The most frequent meaning that a picture can show, else the most frequent."""
        senses = self.senses.get(word.replace(" ", "_").lower(), [])
        shown = [offset for offset in senses if self[offset].lexfile in VISIBLE]
        return next(iter(shown or senses), None)


def read_wordnet(folder: Path = FOLDER) -> WordNet:
    """Parse `data.noun`, `index.noun` and `cntlist.rev` (wndb(5WN), cntlist(5WN))."""
    if not (folder / "data.noun").is_file():
        raise SystemExit(
            f"No WordNet in {folder}: data.noun is missing. Install Debian's wordnet-base, or give "
            "the folder of its files with --wordnet."
        )
    synsets = {}
    for line in _lines(folder / "data.noun"):
        synset = _synset(line)
        synsets[synset.offset] = synset
    senses = {}
    for line in _lines(folder / "index.noun"):
        fields = line.split()
        senses[fields[0]] = fields[6 + int(fields[3]) :]
    uses = {}
    for line in _lines(folder / "cntlist.rev"):
        key, number, count = line.split()
        word, rest = key.split("%")
        if rest[0] == "1":  # a noun
            uses[word, int(number)] = int(count)
    return WordNet(synsets, senses, uses)


def _lines(path: Path) -> list[str]:
    """The lines after the licence, which is indented."""
    return [x for x in path.read_text(encoding="latin1").splitlines() if not x.startswith(" ")]


def _synset(line: str) -> Synset:
    data, gloss = line.split(" | ", 1)
    fields = data.split()
    count = int(fields[3], 16)
    words = tuple(fields[4 + 2 * n] for n in range(count))
    at = 4 + 2 * count
    pointers = [fields[at + 1 + 4 * n : at + 3 + 4 * n] for n in range(int(fields[at]))]
    hypernyms = tuple(target for kind, target in pointers if kind in ("@", "@i"))
    return Synset(fields[0], int(fields[1]), words, hypernyms, gloss.strip().split('; "')[0])
