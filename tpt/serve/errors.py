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
    """The service loads its model, or ends."""


class LateError(RequestError, status=504):
    """The answer was not there in time."""


class TokenError(RequestError, status=401):
    """The bearer token is missing or another."""


class OriginError(RequestError, status=403):
    """A page of another site called."""


class HostError(RequestError, status=421):
    """The request was meant for a name that is not this service's."""


class RouteError(RequestError):
    """There is nothing at this address, or not with this method."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class PredictionError(RequestError, status=500):
    """The only picture of a request was read, and could not be predicted."""


class GoneError(Exception):
    """The client went away: there is nobody to answer."""


def find_status(error: TptError) -> int:
    """The status of an error; what the command line calls wrong usage is 422."""
    if isinstance(error, RequestError):
        return error.status
    return 422 if isinstance(error, (MethodError, PromptError, SourceError)) else 500
