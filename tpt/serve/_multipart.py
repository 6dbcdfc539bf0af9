"""Read a multipart form as it arrives, into memory: nothing is written to the disk."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tpt.errors import why
from tpt.serve.errors import ParameterError, TooLargeError

_MOST_FIELDS = 64
_MOST_TEXT = 2**22  # bytes of a field that is not a file: enough for a thousand names
_MOST_HEAD = 2**13  # bytes of a part's head


@dataclass(eq=False)
class Part:
    """A field, or a file."""

    name: str = ""
    filename: str | None = None  # None: a field
    data: bytearray = field(default_factory=bytearray)


class Form:
    """Parses the body piece by piece.

    Args:
        content_type: of the request, with its boundary.
        most_files: files in the form.

    Raises:
        ParameterError: there is no boundary.
    """

    def __init__(self, content_type: str, most_files: int) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise _broken("it has no boundary")
        self.parts: list[Part] = []
        self._most_files = most_files
        self._head: list[tuple[bytes, bytes]] = []
        self._name = self._value = b""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._take_name,
                    "on_header_value": self._take_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_head,
                    "on_part_data": self._take_data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _broken(why(error)) from error

    def write(self, chunk: bytes) -> None:
        """Take the next piece.

        Raises:
            ParameterError: not a multipart form, or one of too many fields.
            TooLargeError: too many files.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _broken(why(error)) from error

    def finish(self) -> list[Part]:
        """The parts, after the last piece.

        Raises:
            ParameterError: the end is missing.
        """
        if not self._ended:
            raise _broken("its end is missing")
        return self.parts

    # --- called by the parser ---

    def _begin(self) -> None:
        self.parts.append(Part())
        self._head = []

    def _take_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._check_head()

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_head()

    def _check_head(self) -> None:
        taken = sum(len(name) + len(value) for name, value in self._head)
        if taken + len(self._name) + len(self._value) > _MOST_HEAD:
            raise _broken(f"the head of a part is longer than {_MOST_HEAD:,} bytes")

    def _end_header(self) -> None:
        self._head.append((self._name.lower(), self._value))
        self._name = self._value = b""

    def _end_head(self) -> None:
        disposition = dict(self._head).get(b"content-disposition")
        options = parse_options_header(disposition)[1]
        if b"name" not in options:
            raise _broken("a part has no name")
        part = self.parts[-1]
        part.name = options[b"name"].decode("utf-8", "replace")
        if b"filename" in options:
            part.filename = options[b"filename"].decode("utf-8", "replace")
        files = sum(one.filename is not None for one in self.parts)
        if files > self._most_files:
            raise TooLargeError(
                f"The request holds more than {self._most_files} pictures, the length of the "
                "queue. Send several requests."
            )
        if len(self.parts) - files > _MOST_FIELDS:
            raise _broken(f"it has more than {_MOST_FIELDS} fields")

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        if part.filename is None and len(part.data) + end - start > _MOST_TEXT:
            raise _broken(f"the field {part.name!r:.60} is longer than {_MOST_TEXT:,} bytes")
        part.data += data[start:end]

    def _end(self) -> None:
        self._ended = True


def _broken(reason: str) -> ParameterError:
    return ParameterError(f"The body is not a whole multipart form: {reason}. Send it again.")
