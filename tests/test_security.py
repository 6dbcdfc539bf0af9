"""A hostile set of files, tried by the commands in a process that tells what is opened and run.

Each boundary has tests of its own (SECURITY.md names them); here all are tried at once, with the
interpreter's audit hook as the witness.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

WITNESS = """
import json, os, sys
secret, seen = os.path.realpath(sys.argv[1]), []

def watch(event, args):
    if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn"):
        seen.append([event, repr(args)])
    if event == "open" and isinstance(args[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(args[0]))
        if path.startswith(secret):
            seen.append([event, path])
    if event == "import" and "evil" in args[0]:
        seen.append([event, args[0]])

from click.testing import CliRunner
from cli.main import main
import open_clip, torch, tpt.evaluate.evaluation, cli.evaluating  # what they open is their own
sys.addaudithook(watch)
results = []
for command in json.loads(sys.stdin.read()):
    result = CliRunner().invoke(main, command)
    crash = result.exception
    crash = None if crash is None or isinstance(crash, SystemExit) else repr(crash)
    results.append([result.exit_code, result.output, crash])
print(json.dumps({"seen": seen, "results": results}))
"""


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def save_picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (200, 30, 90)).save(path)
    return path


def write_model(folder: Path, weights: Path | None = None, **text: Any) -> str:
    """A model folder whose config says more, or whose weights are a link."""
    folder.mkdir()
    config = {"embed_dim": 16, "vision_cfg": {"width": 64}, "text_cfg": {"width": 16} | text}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    (folder / "evil.py").write_text("open('executed', 'w')")
    if weights is None:
        (folder / "model.safetensors").write_bytes(b"none")
    else:
        (folder / "model.safetensors").symlink_to(weights)
    return f"local-dir:{folder}"


def write_foreign_model(folder: Path, weights: Path | None = None, **more: Any) -> str:
    """A folder as transformers writes them, with code of its own, or whose weights are a link."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", **more}))
    (folder / "evil.py").write_text("open('executed', 'w')")
    if weights is None:
        torch.save({"logit_scale": Evil()}, folder / "pytorch_model.bin")
    else:
        (folder / "model.safetensors").symlink_to(weights)
    return f"local-dir:{folder}"


def write_archive(path: Path) -> str:
    """An archive as OpenAI's, whose layout and code would run something."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"visual": Evil()}, protocol=2))
        archive.writestr("model/constants.pkl", pickle.dumps(Evil(), protocol=2))
        archive.writestr("model/code/__torch__/evil.py", "open('executed', 'w')")
    return str(path)


def write_tar(path: Path, secret: Path) -> None:
    path.parent.mkdir()
    picture = save_picture(path.parent.parent / "good.png").read_bytes()
    with tarfile.open(path, "w") as archive:
        for number, stem in enumerate(["../../up", f"{secret}/picture", "/etc/abs", "good"]):
            for suffix, data in ((".png", picture), (".cls", str(number % 2).encode())):
                with open("member", "wb+") as file:
                    file.write(data)
                    file.seek(0)
                    info = tarfile.TarInfo(stem + suffix)
                    info.size = len(data)
                    archive.addfile(info, file)
        for kind, name in ((tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "hard")):
            info = tarfile.TarInfo(f"{name}.png")
            info.type, info.linkname = kind, str(secret / "picture.png")
            archive.addfile(info)


def test_a_hostile_set_of_files_reads_and_runs_nothing_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, work = tmp_path / "secret", tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    save_picture(secret / "picture.png")
    (secret / "weights.safetensors").write_bytes(b"secret")
    save_picture(work / "pictures/a.png")
    (work / "evil.pt").write_bytes(pickle.dumps({"state_dict": {"ctx": Evil()}}, protocol=2))
    torch.save({"ctx": Evil()}, work / "evil.pth.tar-50")
    np.save(work / "labels.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    (work / "arrays").mkdir()
    (work / "labels.npy").rename(work / "arrays/labels.npy")
    np.save(work / "arrays/fog.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    (work / "list.csv").write_text("path,label\n=cmd|'/bin/touch executed'!A0,cat\n$(id),dog\n")
    write_tar(work / "shards/0.tar", secret)
    tokenizer: dict[str, Any] = {"hf_tokenizer_name": str(secret)}
    code = {"tokenizer_kwargs": {"trust_remote_code": True}}
    models = [
        write_model(work / "named", **tokenizer),
        write_model(work / "code", **code),
        write_model(work / "linked", secret / "weights.safetensors"),
        write_foreign_model(work / "foreign", auto_map={"AutoModel": "evil.Evil"}),
        write_foreign_model(work / "pickled"),
        write_foreign_model(work / "elsewhere", secret / "weights.safetensors"),
        write_archive(work / "archive.pt"),
    ]
    predict = ["predict", "pictures", "--classes", "cat,dog"]
    evaluate = ["eval", "--methods", "zero_shot", "--device", "cpu", "--output"]
    commands = [
        *([*predict, "--model", model] for model in models),
        *([*predict, "--init", name] for name in ("evil.pt", "evil.pth.tar-50")),
        ["prompt", "show", "evil.pt"],
        [*evaluate, "out-a", "arrays"],
        [*evaluate, "out-c", "list.csv", "--classes", "cat,dog"],
        [*evaluate, "out-t", "shards", "--classes", "cat,dog"],
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITNESS, str(secret)],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=work,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["seen"] == []
    assert not (work / "executed").exists()
    refused = [output for _, output, _ in report["results"][:7]]
    assert 'it sets "model_cfg.text_cfg.hf_tokenizer_name"' in refused[0]
    assert 'it sets "model_cfg.text_cfg.tokenizer_kwargs.trust_remote_code"' in refused[1]
    assert "is a link to a file outside its model folder" in refused[2]
    assert "names Python code of its own (auto_map)" in refused[3]
    assert "could not be loaded" in refused[4]
    assert "is a link to a file outside its model folder" in refused[5]
    assert "could not be read: the layout of its modules is damaged" in refused[6]
    for command, (status, output, crash) in zip(commands, report["results"], strict=True):
        assert crash is None, (command, output)
        assert status in ((0, 3) if command[-3] == "shards" else (1, 2, 3)), (command, output)
