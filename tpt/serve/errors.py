"""What a request can be refused for: each error is a status and a sentence."""

from __future__ import annotations

from tpt.errors import MethodError, PromptError, SourceError, TptError


class RequestError(TptError):
    """A request that is not answered with records.

    Args:
        message: what was expected, what came, what to do next.
        retry_after: seconds after which it may be tried again.
    """

    status = 400

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ParameterError(RequestError):
    """A parameter, or the body around it, cannot be used."""

    status = 422


class TooLargeError(RequestError):
    """The body or a picture is larger than the service takes."""

    status = 413


class NotImageError(RequestError):
    """The only picture of a request cannot be read."""

    status = 415


class BusyError(RequestError):
    """The queue is full."""

    status = 429


class UnavailableError(RequestError):
    """The service loads its model, or ends."""

    status = 503


class LateError(RequestError):
    """The answer was not there in time."""

    status = 504


class TokenError(RequestError):
    """The bearer token is missing or another."""

    status = 401


class OriginError(RequestError):
    """A page of another site called."""

    status = 403


class HostError(RequestError):
    """The request was meant for a name that is not this service's."""

    status = 421


class RouteError(RequestError):
    """There is nothing at this address, or not with this method."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class PredictionError(RequestError):
    """The only picture of a request was read, and could not be predicted."""

    status = 500


class GoneError(Exception):
    """The client went away: there is nobody to answer."""


def find_status(error: TptError) -> int:
    """The status of an error; what the command line calls wrong usage is 422."""
    if isinstance(error, RequestError):
        return error.status
    return 422 if isinstance(error, (MethodError, PromptError, SourceError)) else 500
