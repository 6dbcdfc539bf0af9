"""A tokenizer from the files that `transformers` keeps beside a model, read as data.

The tokenizers library reads `tokenizer.json`. A folder with only older files has its tokenizer
built from them as `transformers` does: byte-pair merges for CLIP (`vocab.json`, `merges.txt`), word
pieces for BERT (`vocab.txt`).
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from open_clip import factory
from open_clip.tokenizer import get_clean_fn
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from tpt.errors import ModelError, why
from tpt.model._config import ModelConfig
from tpt.model._hf_json import read_table

LARGEST = 2**26  # bytes of a file: SigLIP 2's has 34 million
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
OLD_FILES = ("vocab.json", "merges.txt", "vocab.txt")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLIP_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_PAD = {"clip": "<|endoftext|>", "siglip": "</s>", "chinese_clip": "[PAD]"}  # their defaults


@dataclass(eq=False)
class FileTokenizer:
    """`tokenizer(texts, length)` -> ids (n, L), padded and cut as `transformers` does."""

    inner: Any  # the tokenizers library's object; its ids include the start and end marks
    context_length: int  # L if a call does not give it
    pad_id: int
    left: bool  # whether padding goes before the text
    clean: Callable[[str], str]  # applied to a text first
    folder: Path  # of its files

    def __post_init__(self) -> None:
        self.inner.no_padding()
        self.inner.no_truncation()

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        length = context_length or self.context_length
        texts = [texts] if isinstance(texts, str) else list(texts)
        ids = torch.full((len(texts), length), self.pad_id)
        for row, text in enumerate(texts):  # a batch would start threads, which break a later fork
            found = self.inner.encode(self.clean(text))
            kept = found.ids
            if len(kept) > length:
                marks = len(
                    list(takewhile(bool, reversed(found.special_tokens_mask)))
                )  # at the end
                kept = kept[: length - marks] + kept[len(kept) - marks :]
            place = slice(length - len(kept), None) if self.left else slice(len(kept))
            ids[row, place] = torch.tensor(kept, dtype=torch.long)
        return ids


def read_tokenizer(folder: Path, config: ModelConfig, name: str) -> Any:
    """The tokenizer of a model folder in the format of `transformers` or open_clip.

    Raises:
        ModelError: no tokenizer in the folder, or one that cannot be read.
    """
    settings: dict[str, Any] = {}
    for file in reversed(FILES[1:]):  # tokenizer_config.json has the last word
        if (folder / file).is_file():
            found = read_table(folder / file, name, LARGEST)
            if found.get("auto_map"):
                raise names_code(folder / file, name)
            settings |= found
    family, words = config.kind, config.text.get("vocab_size", 49_408)
    length = config.text.get("context_length") or factory.DEFAULT_CONTEXT_LENGTH
    inner = _read_inner(folder, family, settings, name)
    if inner is None:
        if family == "clip" and words == 49_408:
            return factory.SimpleTokenizer(context_length=length)
        raise ModelError(
            f'"{name}" has no tokenizer file that can be read (tokenizer.json; for CLIP also '
            "vocab.json with merges.txt, for Chinese-CLIP vocab.txt). With transformers installed, "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) may write "
            "tokenizer.json."
        )
    pad_id = inner.token_to_id(_word(settings.get("pad_token"), _PAD.get(family, "[PAD]")))
    if pad_id is None:
        pad_id = inner.padding["pad_id"] if inner.padding else 0
    highest = max(inner.get_vocab(with_added_tokens=True).values(), default=0)
    if highest >= words:
        raise ModelError(
            f'The tokenizer of "{name}" knows words up to number {highest:,}, but its model has '
            f"{words:,}. The folder's files are of different models."
        )
    if family in _PAD:
        clean = _cleaning(family, settings.get("tokenizer_class"))
    else:  # open_clip's config names it
        clean = get_clean_fn((config.text.get("tokenizer_kwargs") or {}).get("clean", "whitespace"))
    left = settings.get("padding_side") == "left"
    return FileTokenizer(inner, length, pad_id, left, clean, folder)


def _read_inner(folder: Path, family: str, settings: dict[str, Any], name: str) -> Any:
    """The tokenizers library's object for the folder's files, or None if there are none."""
    there = [f for f in (FILES[0], *OLD_FILES) if (folder / f).is_file()]
    for file in there:
        if (folder / file).stat().st_size > LARGEST:
            raise ModelError(
                f'"{file}" of "{name}" is larger than {LARGEST:,} bytes, so it is not a tokenizer. '
                "Copy the model again."
            )
    try:
        if FILES[0] in there:
            return Tokenizer.from_file(str(folder / FILES[0]))
        if family == "clip" and {"vocab.json", "merges.txt"} <= set(there):
            return _byte_pairs(folder)
        if family == "chinese_clip" and "vocab.txt" in there:
            return _word_pieces(folder, settings)
    except Exception as error:  # the library raises Exception itself
        raise ModelError(
            f'The tokenizer of "{name}" cannot be read ({why(error)[:200]}). Copy its files again.'
        ) from error
    return None


def _byte_pairs(folder: Path) -> Any:
    """CLIP's tokenizer from its two files, as `transformers` builds it."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    model = models.BPE.from_file(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        continuing_subword_prefix="",
        end_of_word_suffix="</w>",
        unk_token=end,
    )
    inner = Tokenizer(model)
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    inner.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.add_special_tokens([start, end])
    ids = inner.get_vocab()
    inner.post_processor = processors.RobertaProcessing(
        (end, ids[end]), (start, ids[start]), trim_offsets=False, add_prefix_space=False
    )
    return inner


def _word_pieces(folder: Path, settings: dict[str, Any]) -> Any:
    """BERT's tokenizer from a list of words, as `transformers` builds it."""
    inner = Tokenizer(models.WordPiece.from_file(str(folder / "vocab.txt"), unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars") is not False,
        strip_accents=None,
        lowercase=settings.get("do_lower_case") is not False,
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    marks = [(word, inner.token_to_id(word)) for word in ("[CLS]", "[SEP]")]
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=marks
    )
    return inner


def _cleaning(family: str, kind: object) -> Callable[[str], str]:
    """The cleaning of a text before `tokenizer.json` applies; doing it twice does no harm."""
    if family != "siglip":
        return str
    # SigLIP's tokenizer class drops case and punctuation. SigLIP 2 was trained on lower case, which
    # its tokenizer's files (Gemma's) do not say.
    if kind in ("GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer"):
        return str.lower
    return _canonical if kind in (None, "SiglipTokenizer") else str


def _canonical(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()


def _word(value: object, default: str) -> str:
    """The text of a special token: a string, or a table that holds it."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else default


def names_code(file: Path, name: str) -> ModelError:
    """The error for a tokenizer that needs Python code of its own."""
    return ModelError(
        f'"{file.name}" of "{name}" names Python code of its own (auto_map), which is never run. '
        "Choose a model whose tokenizer is plain data (tokenizer.json), or remove the entry if the "
        "tokenizer works without it."
    )
