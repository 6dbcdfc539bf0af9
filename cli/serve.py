"""`tpt serve`: the adapting classifier over HTTP, with a page to try it on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click

from cli.evaluating import check_extra
from cli.failures import plain_errors
from cli.option_values import read_assignments, read_classes, read_templates
from cli.options import adaptation_options, compute_options

MIB = 2**20


@click.command("serve")
@click.option(
    "--classes",
    metavar="A,B,C|FILE",
    help="Class names for requests that bring none, or a file of them; imagenet, imagenet-a or "
    "imagenet-r for those lists. Default: those stored in the --init file, if any.",
)
@click.option("--init", metavar="FILE", help="Prompt file to start from (CoOp or ours).")
@click.option(
    "--model",
    help="open_clip name, hf-hub:..., local-dir:... or lite. Default: the --init file's own "
    "model, else lite, the embedded model.",
)
@click.option("--pretrained", help="Tag or weight file of an open_clip model; random for random.")
@click.option("--method", default="tpt", show_default=True, help="For requests that name none.")
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="TEXT|FILE",
    help='Words around the class name, {} in its place. Default: "a photo of a {}".',
)
@adaptation_options
@click.option(
    "--reject",
    metavar="THRESHOLD|off",
    help='Answer "none of these" below this probability, or below energy:THRESHOLD. Default: that '
    "of the --init file.",
)
@click.option(
    "--other",
    metavar="TEXT",
    help='One more class, "something else" say, that stands for everything else.',
)
@compute_options
@click.option("--top-k", type=click.IntRange(1), default=5, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: a free one."
)
@click.option(
    "--max-batch",
    type=click.IntRange(1),
    help="Pictures computed together, of all clients [default: 1 on a CPU, 8 elsewhere].",
)
@click.option(
    "--max-wait-ms",
    type=click.FloatRange(0),
    default=5,
    show_default=True,
    help="How long a picture waits for others to share its batch.",
)
@click.option(
    "--queue",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Pictures accepted and not answered yet; more are refused with 429.",
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(0, min_open=True),
    default=60,
    show_default=True,
    help="Seconds from a request's head to its answer; then 504.",
)
@click.option(
    "--max-body-mb",
    type=click.FloatRange(0, min_open=True),
    default=32,
    show_default=True,
    help="MiB of one request.",
)
@click.option(
    "--max-held-mb",
    type=click.FloatRange(0, min_open=True),
    default=512,
    show_default=True,
    help="MiB of all requests that are not answered yet.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=50_000_000,
    show_default=True,
    help="Of one picture.",
)
@click.option(
    "--max-classes",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Class names in one request.",
)
@click.option(
    "--cached-lists",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Class lists of requests that are kept ready.",
)
@click.option(
    "--token-file", metavar="FILE", help="Ask every call for the bearer token that is in FILE."
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Another site whose pages may call, for example https://example.org.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Another name that the service is called by, through a proxy say: example.org, "
    "*.example.org, or * for any. Default: this machine's own names where it listens on loopback, "
    "else any.",
)
@click.option("--force", is_flag=True, help="Use a prompt file made for another model.")
@click.option("--quiet", is_flag=True, help="No access log; nothing on stderr but errors.")
@click.option("--dry-run", is_flag=True, help="Load and check everything, print it, stop.")
def command(quiet: bool, dry_run: bool, host: str, port: int, **options: Any) -> None:
    """Answer over HTTP: POST /v1/predict, and a page to try it on at /.

    The answers are the records of `tpt predict`. Requests bring pictures and, if they like, their
    own class names, words and method. The service listens on this machine alone unless --host says
    otherwise. SIGTERM and Ctrl-C end it when all that it accepted is answered. A line of JSON on
    standard error tells of every request, and never of what is in a picture.
    """
    with plain_errors():
        modules = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
        check_extra("serve", modules, "serve")
        from tpt.serve._guard import write_line
        from tpt.serve.server import serve
        from tpt.serve.service import Service

        wanted, settings = read_wanted(options), read_settings(options, host)
        say = (lambda text: None) if quiet else (lambda text: click.echo(text, err=True))
        # Pillow's notes on broken metadata name no image; a broken picture is a record.
        warnings.filterwarnings("ignore", module="PIL")
        if dry_run:
            base = Service(settings).load(wanted)
            names = base.classes
            click.echo(f"model    {base.clip.name} on {base.clip.device}, {base.clip.precision}")
            click.echo(f"method   {wanted.method}")
            click.echo(f"classes  {'of each request' if names is None else len(names)}")
            return
        serve(
            wanted, settings, host, port, say=say, log=(lambda entry: None) if quiet else write_line
        )


def read_wanted(options: dict[str, Any]) -> Any:
    """What it predicts with."""
    from tpt.data.class_lists import list_names
    from tpt.streaming.predict_job import PredictSettings

    entries = read_classes(options["classes"])
    names = ("model", "pretrained", "init", "method", "views", "augment", "keep", "steps", "lr")
    others = ("reset", "gate", "gate_views", "precision", "device", "seed", "force")
    more = ("reject", "other")
    return PredictSettings(
        classes=None if entries is None else list_names(entries),
        templates=read_templates(options["templates"]),
        options=read_assignments(options["assignments"]),
        **{name: options[name] for name in (*names, *others, *more)},
    )


def read_settings(options: dict[str, Any], host: str) -> Any:
    """What it allows."""
    from tpt.serve._hosts import choose_hosts
    from tpt.serve.settings import ServeSettings

    names = ("max_batch", "max_wait_ms", "queue", "timeout_s", "max_pixels", "max_classes")
    others = ("cached_lists", "num_workers", "top_k", "origins")
    return ServeSettings(
        max_body=int(options["max_body_mb"] * MIB),
        max_held=int(options["max_held_mb"] * MIB),
        token=read_token(options["token_file"]),
        hosts=choose_hosts(host, options["hosts"]),
        **{name: options[name] for name in (*names, *others)},
    )


def read_token(path: str | None) -> str | None:
    """The token in a file.

    Raises:
        BadParameter: the file cannot be read, or holds none.
    """
    if path is None:
        return None
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(
            f'"{path}" cannot be read: {error}.', param_hint="--token-file"
        ) from error
    if not token or not token.isascii() or len(token.split()) > 1:
        raise click.BadParameter(
            f'"{path}" holds no token; expected one line of ASCII without spaces, for example from '
            "openssl rand -hex 32.",
            param_hint="--token-file",
        )
    return token
