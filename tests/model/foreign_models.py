"""Small random models as `transformers` saves them, for the tests of the folders it writes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import open_clip
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the library's own making, at its import
    import transformers

VISION = {
    **{"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "image_size": 32, "patch_size": 16},
}
TEXT = {
    **{"hidden_size": 32, "intermediate_size": 100, "num_hidden_layers": 2},
    **{"num_attention_heads": 4},
}
SCRIPTS = (
    *("Katze {} Größe", "кошка {} дом", "猫{}の写真", "고양이 {}", "قطة {}", "γάτα {}"),
    *("बिल्ली {}", "chat naïve {}", "ﬁne “{}”", "{}'s x-ray, no. 12!", "🐈 {}", "A_{}  B"),
)


def class_names() -> list[str]:
    """2,000 names in many scripts."""
    names = open_clip.IMAGENET_CLASSNAMES
    return [*names, *(SCRIPTS[i % len(SCRIPTS)].format(n) for i, n in enumerate(names))]


def build(kind: str, seed: int = 0, **changes: Any) -> Any:
    """A model of `transformers` with weights large enough that every part of it matters."""
    text, vision = {**TEXT, **changes.pop("text", {})}, {**VISION, **changes.pop("vision", {})}
    classes = {
        "clip": (transformers.CLIPConfig, transformers.CLIPModel, {"projection_dim": 24}),
        "siglip": (transformers.SiglipConfig, transformers.SiglipModel, {}),
        "chinese_clip": (
            *(transformers.ChineseCLIPConfig, transformers.ChineseCLIPModel),
            {"projection_dim": 24},
        ),
    }
    config, model, options = classes[kind]
    if kind == "siglip":
        text = {"vocab_size": 1200, "projection_size": vision["hidden_size"]} | text
    if kind == "chinese_clip":
        text = {"vocab_size": 1200, "max_position_embeddings": 40} | text
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        made = model(config(text_config=text, vision_config=vision, **options, **changes)).eval()
        for name, weight in made.named_parameters():
            if weight.ndim < 2 and name != "logit_scale":
                weight.data += 0.1 * torch.randn_like(weight)
            elif "embedding" in name:
                weight.data = 0.1 * torch.randn_like(weight)
    return made


def save(model: Any, folder: Path, **options: Any) -> str:
    """`local-dir:` and the folder, with what the model's processor would write beside it."""
    model.save_pretrained(folder, **options)
    kind = model.config.model_type
    make_processor(kind, model.config.vision_config.image_size).save_pretrained(folder)
    {"clip": save_clip_words, "siglip": save_gemma_words, "chinese_clip": save_bert_words}[kind](
        folder
    )
    return f"local-dir:{folder}"


def make_processor(kind: str, size: int, **changes: Any) -> Any:
    square = {"height": size, "width": size}
    if kind == "siglip":
        return transformers.SiglipImageProcessor(**{"size": square, **changes})
    cropped = {"size": {"shortest_edge": size}, "crop_size": square}
    return transformers.CLIPImageProcessor(**{**cropped, **changes})


def save_clip_words(folder: Path) -> None:
    """CLIP's own tokenizer as `transformers` writes it."""
    ours = open_clip.SimpleTokenizer()
    vocab = dict(ours.encoder)
    for mark, theirs in (("start", "<|startoftext|>"), ("end", "<|endoftext|>")):
        vocab[theirs] = vocab.pop(f"<{mark}_of_text>")
    (folder / "vocab.json").write_text(json.dumps(vocab))
    merges = "".join(f"{a} {b}\n" for a, b in ours.bpe_ranks)
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges)
    tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=list(ours.bpe_ranks))
    tokenizer.model_max_length = 77
    tokenizer.save_pretrained(folder)


def save_gemma_words(folder: Path) -> None:
    """A tokenizer of SigLIP 2's class with 1,000 tokens, learned from the names."""
    from tokenizers.trainers import BpeTrainer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    blank = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    blank.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(" ", "▁")]
    )
    # No token spans two words, and one inside a text has its space in front, as Gemma's have.
    blank.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    trainer = BpeTrainer(vocab_size=1000, special_tokens=special, show_progress=False)
    blank.train_from_iterator([*class_names()[:1000], *["x photo the photo zebra x"] * 99], trainer)
    learned = json.loads(blank.to_str())["model"]
    tokenizer = transformers.Siglip2Tokenizer(
        vocab=learned["vocab"], merges=[tuple(m) for m in learned["merges"]], padding_side="right"
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    tokenizer.save_pretrained(folder)


def save_bert_words(folder: Path, as_json: bool = True) -> None:
    """A tokenizer of Chinese-CLIP's class: letters, characters and some words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "photo", "the", "zebra"]
    letters = sorted({c for name in class_names() for c in name.lower() if not c.isspace()})
    words += [*letters, *(f"##{letter}" for letter in letters)]
    words = words[:1200]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    if as_json:
        ids = {word: place for place, word in enumerate(words)}
        transformers.BertTokenizer(ids).save_pretrained(folder)
