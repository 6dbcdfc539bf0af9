"""The errors of a request: each has an HTTP status and a message."""

from __future__ import annotations

from tpt.errors import MethodError, PromptError, SourceError, TptError


class RequestError(TptError):
    """A request that is not answered with records.

    Args:
        message: what was expected, what came, what to do next.
        retry_after: seconds until it may be tried again.
    """

    status = 400

    def __init_subclass__(cls, status: int = 400) -> None:
        cls.status = status

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ParameterError(RequestError, status=422):
    """A parameter, or the body around it, cannot be used."""


class TooLargeError(RequestError, status=413):
    """The body or a picture is larger than the service takes."""


class NotImageError(RequestError, status=415):
    """The only picture of a request cannot be read."""


class BusyError(RequestError, status=429):
    """The queue is full."""


class UnavailableError(RequestError, status=503):
    """The service is loading its model, or ending."""


class LateError(RequestError, status=504):
    """The answer was not ready in time."""


class TokenError(RequestError, status=401):
    """The bearer token is missing or wrong."""


class OriginError(RequestError, status=403):
    """A page of another site called."""


class HostError(RequestError, status=421):
    """The request names a host that is not this service's."""


class RouteError(RequestError):
    """There is nothing at this address, or not with this method."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class PredictionError(RequestError, status=500):
    """The only picture of a request was read, but could not be predicted."""


class GoneError(Exception):
    """The client went away, so nobody gets an answer."""


def find_status(error: TptError) -> int:
    """The HTTP status of an error; 422 for what the command line calls wrong usage."""
    if isinstance(error, RequestError):
        return error.status
    return 422 if isinstance(error, (MethodError, PromptError, SourceError)) else 500
