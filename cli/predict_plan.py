"""`tpt predict` before the first picture: read the options, build the job, describe it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cli.evaluating import telling_warnings
from cli.jacobian import tell_jacobian
from cli.option_values import read_prediction
from cli.options import NOTE_EMBEDDED, tell_model
from cli.prompt_text import table

if TYPE_CHECKING:
    from tpt.streaming.output import Target
    from tpt.streaming.predict_job import PredictJob
    from tpt.streaming.predict_settings import PredictSettings


def make_target(options: dict[str, Any]) -> Target:
    """Where the records go; without --format the file's ending decides the form."""
    from tpt.streaming.output import Target

    path = options["output"]
    ending = os.path.splitext(path)[1].lower().removeprefix(".")
    form = options["form"] or (ending if ending in ("csv", "parquet", "srt", "vtt") else "jsonl")
    return Target(path, form, options["top_k"])


def make_settings(options: dict[str, Any], entries: tuple[str, ...] | None) -> PredictSettings:
    """What the options ask for."""
    from tpt.data.class_lists import list_names

    return read_prediction(
        options,
        classes=None if entries is None else list_names(entries),
        # With --ray the actors have devices, this process has none.
        device=options["device"] if options["ray"] is None else "cpu",
    )


def load_job(options: dict[str, Any], entries: tuple[str, ...] | None, say: Any) -> PredictJob:
    """Build the job, and say what was chosen by default."""
    from tpt.data.class_files import note_list
    from tpt.errors import MethodError
    from tpt.methods._stream_state import check_state_path
    from tpt.streaming.predict_job import build_predict_job
    from tpt.streaming.predict_settings import DEFAULT_MODEL

    wanted = make_settings(options, entries)
    if wanted.model not in (None, DEFAULT_MODEL):
        say(f"Loading {wanted.model} (weights that are not here yet are fetched first) ...")
    with telling_warnings(say, of=""):
        job = build_predict_job(wanted)
    if options["resume"] and job.method.keeps_state:
        raise MethodError(
            "--resume cannot go on with a method that keeps state between images: what the earlier "
            "images left is gone. Run it again with --overwrite."
        )
    if options["save_state"] is not None:
        if not hasattr(job.method.go_on, "save_state"):
            raise MethodError(
                f"--save-state has no meaning with --method {job.settings['method']}, which has no "
                "state that can be saved. Leave it out, or use --method tda."
            )
        check_state_path(type(job.method.go_on).__name__, options["save_state"])
    if job.method.together is not None and not job.method.needs_pictures:
        say(
            f"Note: {job.method.batch_size} images decide about one another at a time "
            "(--batch-size), so results depend on which images stand together."
        )
    elif job.method.keeps_state:
        if job.method.needs_pictures:
            say(
                f"Note: {job.method.batch_size} images are learned from at a time (--batch-size), "
                "on a copy of the model in float32."
            )
        say(
            "Note: results depend on the order of the images, because the method learns from each; "
            "sorted or video-like images can make it worse than zero-shot."
        )
    for note in note_list(job.engine.classes, entries):
        say(f"Note: {note}")
    if wanted.model is None and wanted.init is None:
        say(NOTE_EMBEDDED)
    tell_model(job.clip, options["precision"], "the predictions mean", say)
    return job


def describe(job: PredictJob, target: Target, options: dict[str, Any], images: int | str) -> str:
    """The settings as `name: value` lines, for --dry-run."""
    classes = job.settings["classes"]
    shown = ", ".join(classes[:5]) + (f", ... ({len(classes)})" if len(classes) > 5 else "")
    can_build = job.shares_gradient and options["ray"] is None
    jacobian = {"jacobian": tell_jacobian(job.engine, options["jacobian"])} if can_build else {}
    rows = {
        "images": images,
        **{k: v for k, v in job.settings.items() if k not in ("classes", "context", "jacobian")},
        **{f"context {k}": v for k, v in job.settings["context"].items()},
        "classes": shown,
        "text path": job.engine.path,
        **jacobian,
        "batch size": options["batch_size"] or "auto",
        "workers": f"{options['num_workers']} {options['decode_in']}",
        "output": f"{target.path} ({target.form})",
        **job.environment,
    }
    text = table([[name, str(value)] for name, value in rows.items()])
    return text.encode("utf-8", "backslashreplace").decode()  # file names may be no UTF-8
