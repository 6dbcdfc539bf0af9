"""The settings of a service, and what one request asks for."""

from __future__ import annotations

from dataclasses import dataclass

from tpt.errors import MethodError
from tpt.streaming.items import NamedBytes

MIB = 2**20


@dataclass(frozen=True)
class ServeSettings:
    """A service's limits and operation; `PredictSettings` has the prediction.

    Raises:
        MethodError: a number out of its range.
    """

    max_batch: int | None = None  # pictures computed together; None: 8, or 1 on a CPU
    max_wait_ms: float = 5.0  # that a picture waits for others to share its batch
    queue: int = 64  # pictures accepted and not answered yet
    timeout_s: float = 60.0  # from the head of a request to its answer
    max_body: int = 32 * MIB  # bytes of one request
    max_held: int = 512 * MIB  # bytes of all requests that are not answered yet
    max_pixels: int = 50_000_000  # of one picture, by its declared size
    max_classes: int = 1000  # names in one request
    cached_lists: int = 8  # class lists held ready, besides the service's own
    num_workers: int = 2  # decoding threads
    top_k: int = 5  # predictions a record, unless the request says otherwise
    token: str | None = None  # that a request must send
    origins: tuple[str, ...] = ()  # other sites whose pages may call
    hosts: tuple[str, ...] | None = None  # names it answers to besides the loopback's; None: any

    def __post_init__(self) -> None:
        least = {"queue": 1, "max_body": 1, "max_held": 1, "max_pixels": 1, "max_classes": 1}
        least |= {"cached_lists": 1, "num_workers": 1, "top_k": 1, "max_batch": 1, "max_wait_ms": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise MethodError(f"{name} must be at least {low}; got {value}.")
        if not self.timeout_s > 0:
            raise MethodError(f"timeout_s must be more than 0 seconds; got {self.timeout_s}.")


@dataclass(frozen=True)
class Asked:
    """The class list, templates and method of a request; None: the service's own."""

    classes: tuple[str, ...] | None = None
    templates: tuple[str, ...] = ()
    method: str | None = None


Upload = NamedBytes
"""One encoded picture of a request, with the client's file name."""
