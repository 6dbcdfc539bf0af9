"""`tpt predict --ray`: the same prediction on a cluster, into a folder of Parquet files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.failures import interruptible
from cli.progress import Tally, progress
from tpt.errors import MethodError

if TYPE_CHECKING:
    from tpt.streaming.items import Reading
    from tpt.streaming.predict_job import PredictJob
    from tpt.streaming.predict_settings import PredictSettings
    from tpt.streaming.sources import Found

_ALONE = {
    "strict": "",
    "save_state": "",
    "load_state": "",
    "decode_in": "",
    "screen": ", whose actors hold one model each",
    "jacobian": ", whose actors would build one each",
}
"""Options of a single process, and why they have no meaning on a cluster, if that is not plain."""


def check_options(options: dict[str, Any]) -> Any:
    """Refuse what has no meaning on a cluster; return the pool of actors."""
    from tpt.scale.cluster import read_pool
    from tpt.scale.output import Parts

    for name, why in _ALONE.items():
        if options[name] not in (None, False, "threads"):  # their defaults
            flag = name.replace("_", "-")
            raise MethodError(f"--{flag} has no meaning with --ray{why}. Leave it out.")
    if options["form"] not in (None, "parquet"):
        raise MethodError(
            "--ray writes Parquet files into a folder; `tpt records convert` makes another form of "
            "them. Leave --format out."
        )
    pool = read_pool(options["actors"], options["actor_cpus"], options["actor_gpus"])
    Parts(options["output"]).check(options["resume"], options["overwrite"])
    return pool


def run(
    found: Found,
    job: PredictJob,
    wanted: PredictSettings,
    pool: Any,
    reading: Reading,
    options: dict[str, Any],
    quiet: bool,
) -> int:
    """Predict on a cluster and write; return the exit code."""
    from tpt.scale import Predictor, connect, predict
    from tpt.scale.output import Parts

    parts = Parts(options["output"])
    settings = {**job.settings, "top_k": options["top_k"], "format": "parquet"}
    about = {"settings": settings, "run": {**job.environment, "ray": options["ray"]}}
    tally = Tally(total=None)
    with parts.claim():
        done = parts.prepare(about, options["resume"])
        with (
            interruptible(lambda: f"Interrupted after {tally.summary()}. Go on with --resume."),
            connect(options["ray"]),
            parts.write(about) as write,
            progress(quiet) as show,
        ):
            named = ("top_k", "batch_size", "num_workers", "time_limit")
            prepared = Predictor.prepare(wanted, job, **{n: options[n] for n in named})
            for record in predict(found, prepared, pool, reading, set(done.paths)):
                write(record)
                tally.add(record)
                show(tally)
    if not quiet:
        earlier = f" {len(done.paths):,} were done before." if done.paths else ""
        click.echo(f"{tally.summary()}.{earlier} Records: {parts.folder}", err=True)
    return 3 if tally.failed or done.failed else 0
