"""Text towers of `transformers` in open_clip's models: RoBERTa, XLM-R, mT5, NLLB, BERT.

open_clip wraps them in its `HFTextEncoder`. We use it with two differences: a tower is built from
facts (below for the towers that open_clip lists, else from a `config.json` through an allow-list),
not by downloading weights that the checkpoint replaces anyway; and the decoder of an
encoder-decoder is not built. It needs the extra `hf`.

Context vectors enter where the tower looks up its token embeddings, not as `inputs_embeds`: the
tower still sees the ids, from which RoBERTa and NLLB count positions, and NLLB scales the vectors
as it scales its words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from open_clip import factory, hf_model
from torch import nn

from tpt.errors import ModelError, why
from tpt.model._config import DEPTH, SIZE, Check, ModelConfig, number, whole, words
from tpt.model._hf_json import read_settings, refused, show

_BERT: dict[str, Any] = {
    **{"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    **{"intermediate_size": 3072, "vocab_size": 30_522, "max_position_embeddings": 512},
    **{"type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 0, "hidden_act": "gelu"},
}
_ROBERTA = {
    **{**_BERT, "vocab_size": 50_265, "max_position_embeddings": 514, "type_vocab_size": 1},
    **{"layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
}
_MT5: dict[str, Any] = {
    **{"vocab_size": 250_112, "d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12},
    **{"num_heads": 12, "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-6},
    **{"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
    **{"pad_token_id": 0, "eos_token_id": 1},
}
_NLLB: dict[str, Any] = {
    **{"vocab_size": 256_206, "d_model": 1024, "encoder_layers": 12, "encoder_ffn_dim": 4096},
    **{"encoder_attention_heads": 16, "max_position_embeddings": 1024, "scale_embedding": True},
    **{"activation_function": "relu", "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
}
DEFAULTS = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA | {"vocab_size": 250_002},
    "mt5": _MT5,
    "m2m_100": _NLLB,
}
"""Facts of each architecture. A `config.json` may change these, and nothing else of it is read."""

_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
_BIOMED = "microsoft/BiomedNLP-{}BERT-base-uncased-abstract"
KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta-base": ("roberta", {}),
    "xlm-roberta-base": ("xlm-roberta", {}),
    "xlm-roberta-large": ("xlm-roberta", {**_LARGE, "intermediate_size": 4096}),
    "google/mt5-base": ("mt5", {}),
    "google/mt5-xl": ("mt5", {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32}),
    "facebook/nllb-200-distilled-600M": ("m2m_100", {}),
    "facebook/nllb-200-distilled-1.3B": (
        "m2m_100",
        {"encoder_layers": 24, "encoder_ffn_dim": 8192},
    ),
    "bert-base-uncased": ("bert", {}),
    **{
        name: ("bert", {})
        for made in ("Biomed", "PubMed")
        for name in (_BIOMED.format(made), f"{_BIOMED.format(made)}-fulltext")
    },
}
_ID = whole(4_000_000)
_ACTIVATIONS = words("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
_CHECKS: dict[str, Check] = {
    **dict.fromkeys(("hidden_size", "num_attention_heads", "d_model", "d_kv", "num_heads"), SIZE),
    **dict.fromkeys(("encoder_attention_heads", "type_vocab_size"), SIZE),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "encoder_layers"), DEPTH),
    **dict.fromkeys(("intermediate_size", "d_ff", "encoder_ffn_dim"), whole(2**20)),
    **dict.fromkeys(("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id"), _ID),
    **dict.fromkeys(("max_position_embeddings", "relative_attention_num_buckets"), whole(8_192)),
    "relative_attention_max_distance": whole(8_192),
    **dict.fromkeys(("layer_norm_eps", "layer_norm_epsilon"), number(most=1)),
    **dict.fromkeys(("hidden_act", "activation_function"), _ACTIVATIONS),
    "feed_forward_proj": words("relu", "gated-gelu"),
    "scale_embedding": lambda value: isinstance(value, bool),
}


def check_installed(text: Mapping[str, Any], name: str, form: str = "") -> None:
    """Refuse, before it is fetched, a model whose text tower or tokenizer needs transformers.

    Args:
        text: its `text_cfg`.
        form: text after the name in the message, for a model that has several forms.

    Raises:
        ModelError: transformers is not installed.
    """
    part = "text tower" if text.get("hf_model_name") else "tokenizer"
    needs = text.get("hf_model_name") or text.get("hf_tokenizer_name")
    if needs and hf_model.transformers is None:
        raise ModelError(
            f'The {part} of "{name}"{form} needs transformers, which is not installed. '
            'Install it: pip install "tpt-runtime[hf]".'
        )


def find_facts(tower: str, folder: Path | None, name: str) -> dict[str, Any]:
    """Facts of a tower by its name on the hub, with its kind as "model_type".

    Args:
        tower: the name, as open_clip's configs have it ("roberta-base").
        folder: a model folder that may hold the `config.json` of a tower that is not in `KNOWN`.
        name: of the whole model, for the errors.

    Raises:
        ModelError: the tower's config cannot be found or is refused.
    """
    if tower in KNOWN:
        known, changes = KNOWN[tower]
        return {"model_type": known, **DEFAULTS[known], **changes}
    path = folder / "config.json" if folder is not None else None
    if path is None or not path.is_file():
        try:
            path = Path(factory.download_pretrained_from_hf(tower, filename="config.json"))
        except OSError as error:
            raise ModelError(
                f'The text tower of "{name}" is "{tower}", whose config could not be fetched '
                f"({why(error)[:200]}). Without a network, put its config.json beside "
                "open_clip_config.json and use local-dir:."
            ) from error
    found = read_settings(path, name)
    kind = found.get("model_type")
    if not isinstance(kind, str) or kind not in DEFAULTS:
        raise ModelError(
            f'The text tower of "{name}" is of the kind {show(kind)}; expected one of '
            f"{', '.join(DEFAULTS)}. Choose another model."
        )
    facts = {"model_type": kind, **DEFAULTS[kind]}
    for key in DEFAULTS[kind]:
        if (value := found.get(key)) is not None:
            if not _CHECKS[key](value):
                raise refused(name, key, value)
            facts[key] = value
    return facts


def with_text_facts(config: ModelConfig, folder: Path | None, name: str) -> ModelConfig:
    """The config with the facts of its text tower, if that is one of transformers.

    Raises:
        ModelError: see `find_facts`.
    """
    tower = config.text.get("hf_model_name")
    if not tower:
        return config
    text = {**config.text, "hf_facts": find_facts(tower, folder, name)}
    return replace(config, model={**config.model, "text_cfg": text})


def width_of(facts: Mapping[str, Any]) -> int:
    """D, the width of a token."""
    return int(facts.get("d_model") or facts["hidden_size"])


def build_text_tower(text: Mapping[str, Any], width_out: int) -> nn.Module:
    """open_clip's wrapper around a tower with random weights.

    Args:
        text: a `text_cfg` with the tower's facts under "hf_facts".
        width_out: E.
    """
    from transformers import AutoConfig

    facts = dict(text["hf_facts"])
    pooler = text.get("hf_pooler_type") or "mean_pooler"
    kind = facts.pop("model_type")
    decoder = {"mt5": "num_decoder_layers", "m2m_100": "decoder_layers"}.get(kind)
    config = AutoConfig.for_model(kind, **facts, **({decoder: 0} if decoder else {}))
    tower: Any = hf_model.HFTextEncoder(
        str(text["hf_model_name"]),
        output_dim=width_out,
        config=config,
        pooler_type=pooler,
        proj_type=text.get("hf_proj_type") or "mlp",
        output_tokens=bool(text.get("output_tokens")),
    )
    # open_clip leaves these out too when it builds a tower by its name.
    if decoder:
        tower.transformer = tower.transformer.encoder
    elif pooler != "cls_pooler":
        tower.transformer.pooler = None
    tower.context_length = text.get("context_length") or factory.DEFAULT_CONTEXT_LENGTH
    made: nn.Module = tower
    return made
