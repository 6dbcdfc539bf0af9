"""Model folders and hub repositories: open_clip's and those of `transformers`.

The config's file name tells which of the two a folder is. Nothing outside the folder is read, and
nothing in it is run.
"""

from __future__ import annotations

from pathlib import Path

from open_clip import factory

from tpt.errors import ModelError
from tpt.model._config import ModelConfig, read_config
from tpt.model._hf_config import CONFIG_FILE as HF_CONFIG_FILE
from tpt.model._hf_config import is_model_folder, read_model_config
from tpt.model._hf_json import FAMILIES
from tpt.model._hf_preprocess import FILES as PREPROCESS_FILES
from tpt.model._hf_text import check_installed, with_text_facts
from tpt.model._hf_tokenizer import FILES, LARGEST, OLD_FILES, names_code
from tpt.model._weights import HF_NAMES, find_weights, list_files, list_names
from tpt.text import read_json

CONFIG_FILE = "open_clip_config.json"


def read_folder(name: str) -> ModelConfig:
    """The config of a model folder that has weights beside it.

    Args:
        name: "local-dir:" and the folder.

    Raises:
        ModelError: no model in the folder, or one that cannot be read.
    """
    folder = Path(name.removeprefix("local-dir:"))
    ours = (folder / CONFIG_FILE).is_file()
    if not ours and not is_model_folder(folder):
        raise ModelError(
            f'No open_clip_config.json in "{folder}", nor a config.json of transformers: '
            "local-dir: expects a folder that holds one of the two and a weight file "
            "(.safetensors, .bin or .pth)."
        )
    for file in [CONFIG_FILE] if ours else [HF_CONFIG_FILE, *PREPROCESS_FILES]:
        _check_inside(folder / file, folder)
    config = read_config(folder / CONFIG_FILE, name) if ours else read_model_config(folder, name)
    weights = find_weights(folder, config.kind)
    if weights is None:
        names = "(.safetensors, .bin or .pth)" if ours else f"({', '.join(HF_NAMES)})"
        raise ModelError(
            f'"{folder}" holds a config but no weight file {names}. Put the weights beside the '
            "config; they are never replaced by random ones."
        )
    _check_inside(weights, folder)
    return config


def check_folder(folder: Path, name: str, config: ModelConfig) -> None:
    """Refuse links out of the folder, and a tokenizer that needs Python code of its own."""
    if config.kind in FAMILIES:
        weights = find_weights(folder, config.kind)
        beside = [folder / file for file in (*FILES, *OLD_FILES)]
        for file in [*beside, *(list_files(weights) if weights else ())]:
            _check_inside(file, folder)
        return
    for file in folder.iterdir() if config.text.get("hf_tokenizer_name") else ():
        _check_inside(file, folder)
        found = read_json(file, LARGEST) if file.suffix == ".json" else None
        if isinstance(found, dict) and "auto_map" in found:
            raise names_code(file, name)


def _check_inside(file: Path, folder: Path) -> None:
    """Refuse a link out of a model folder, except to `blobs` of the hub's cache, two folders up."""
    home = folder.resolve()
    homes = [home] + [home.parent.parent / "blobs"] * (home.parent.name == "snapshots")
    if not any(file.resolve().is_relative_to(home) for home in homes):
        raise ModelError(
            f'"{file}" is a link to a file outside its model folder, which is not read. Put the '
            "file itself there, or give the weights of an open_clip model as pretrained=FILE."
        )


def fetch_repository(name: str) -> tuple[ModelConfig, Path | None, Path]:
    """(config, folder of the tokenizer's files if they are the model's own, weight file).

    Args:
        name: "hf-hub:" and the repository.

    Raises:
        ModelError: a config that cannot be read.
        OSError: nothing could be fetched.
    """
    repository = name.removeprefix("hf-hub:")
    fetch = factory.download_pretrained_from_hf
    try:
        path = Path(fetch(repository, filename=CONFIG_FILE))
    except FileNotFoundError:
        if _fetch_some(repository, HF_CONFIG_FILE) is None:
            raise
        return _fetch_foreign(repository, name)
    config = read_config(path, name)
    check_installed(config.text, name)
    config = with_text_facts(config, path.parent, name)
    return config, None, Path(fetch(repository))


def _fetch_foreign(repository: str, name: str) -> tuple[ModelConfig, Path, Path]:
    """The files of a repository in transformers' format, all in one folder of the hub's cache."""
    folder = Path(factory.download_pretrained_from_hf(repository, filename=HF_CONFIG_FILE)).parent
    for file in PREPROCESS_FILES:
        _fetch_some(repository, file)
    config = read_model_config(folder, name)
    for file in (*FILES, *OLD_FILES):
        _fetch_some(repository, file)
    weights = next(filter(None, (_fetch_some(repository, file) for file in HF_NAMES)), None)
    if weights is None:
        raise ModelError(
            f'"{name}" holds a config but none of the weight files {", ".join(HF_NAMES)}. Choose '
            "another repository; weights are never replaced by random ones."
        )
    for file in list_names(weights):
        _fetch_some(repository, file)
    check_folder(folder, name, config)
    return config, folder, weights


def _fetch_some(repository: str, file: str) -> Path | None:
    """A file of a repository, or None if it has no file of that name."""
    try:
        return Path(factory.download_pretrained_from_hf(repository, filename=file))
    except FileNotFoundError:
        return None
