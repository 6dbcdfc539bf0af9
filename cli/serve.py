"""`tpt serve`: the adapting classifier over HTTP, with a page to try it on."""

from __future__ import annotations

import warnings
from typing import Any

import click

from cli.evaluating import check_extra
from cli.failures import plain_errors
from cli.option_values import read_names, read_prediction, read_text
from cli.options import (
    ABOVE_ZERO,
    AT_LEAST_ONE,
    adaptation_options,
    compute_options,
    fill,
    force_option,
    number_option,
    reading_options,
    start_options,
    template_option,
    top_k_option,
)

MIB = 2**20


@click.command("serve")
@click.option(
    "--classes",
    metavar="A,B,C|FILE",
    help="Class names for requests that bring none, or a file of them; imagenet, imagenet-a or "
    "imagenet-r for those lists. Default: those stored in the --init file, if any.",
)
@start_options
@click.option("--method", default="tpt", show_default=True, help="For requests that name none.")
@template_option('Words around the class name, {} in its place. Default: "a photo of a {}".')
@adaptation_options
@reading_options
@compute_options
@top_k_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: a free one."
)
@click.option(
    "--max-batch",
    type=AT_LEAST_ONE,
    help="Pictures computed together, of all clients [default: 1 on a CPU, 8 elsewhere].",
)
@number_option(
    "--max-wait-ms",
    click.FloatRange(0),
    5,
    "How long a picture waits for others to share its batch.",
)
@number_option(
    "--queue",
    AT_LEAST_ONE,
    64,
    "Pictures accepted and not answered yet; more are refused with 429.",
)
@number_option(
    "--timeout-s", ABOVE_ZERO, 60, "Seconds from a request's head to its answer; then 504."
)
@number_option("--max-body-mb", ABOVE_ZERO, 32, "MiB of one request.")
@number_option("--max-held-mb", ABOVE_ZERO, 512, "MiB of all requests that are not answered yet.")
@number_option("--max-pixels", AT_LEAST_ONE, 50_000_000, "Of one picture.")
@number_option("--max-classes", AT_LEAST_ONE, 1000, "Class names in one request.")
@number_option("--cached-lists", AT_LEAST_ONE, 8, "Class lists of requests that are kept ready.")
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
@force_option
@click.option("--quiet", is_flag=True, help="No access log; nothing on stderr but errors.")
@click.option("--dry-run", is_flag=True, help="Load and check everything, print it, stop.")
def command(quiet: bool, dry_run: bool, host: str, port: int, **options: Any) -> None:
    """Answer over HTTP: POST /v1/predict, and a page to try it on at /.

    The answers are the records of `tpt predict`. Requests bring pictures and may bring their own
    class names, words and method. The service listens on this machine alone unless --host says
    otherwise. On SIGTERM or Ctrl-C it answers what it has accepted, then ends. It logs a line of
    JSON for every request to standard error, and never what is in a picture.
    """
    with plain_errors():
        modules = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
        check_extra("serve", modules, "serve")
        from tpt.serve._guard import write_line
        from tpt.serve._hosts import choose_hosts
        from tpt.serve.server import serve
        from tpt.serve.service import Service
        from tpt.serve.settings import ServeSettings

        wanted = read_prediction(options, classes=read_names(options["classes"]))
        settings = fill(
            ServeSettings,
            options,
            max_body=int(options["max_body_mb"] * MIB),
            max_held=int(options["max_held_mb"] * MIB),
            token=read_token(options["token_file"]),
            hosts=choose_hosts(host, options["hosts"]),
        )
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


def read_token(path: str | None) -> str | None:
    """The token in a file."""
    if path is None:
        return None
    token = read_text(path, "--token-file").strip()
    if not token or not token.isascii() or len(token.split()) > 1:
        raise click.BadParameter(
            f'"{path}" holds no token; expected one line of ASCII without spaces, for example from '
            "openssl rand -hex 32.",
            param_hint="--token-file",
        )
    return token
