"""The body of a request to the file in it: the body itself, or the field `file` of a form."""

from __future__ import annotations

from email.message import Message
from typing import Final

from layerscope.schemas.errors import Refused

FIELD: Final = "file"
MOST_PARTS: Final = 16
HINT: Final = "send the picture as the body, or as the field `file` of a form: curl -F file=@picture.png"


def file_in(body: bytes, content_type: str) -> bytes:
    """Return the file that a body brings, whatever its type is said to be.

    Raises:
        Refused: there is none, or the form cannot be read.
    """
    header = Message()
    header["content-type"] = content_type
    if header.get_content_type() != "multipart/form-data":
        return body
    boundary = header.get_boundary("")
    if not boundary or len(boundary) > 200:
        raise _broken("its header names no boundary")
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1", "replace"), MOST_PARTS + 1)[1:]
    for part in parts[:MOST_PARTS]:
        if part.startswith(b"--"):
            break
        head, separator, content = part.partition(b"\r\n\r\n")
        if not separator:
            raise _broken("a field has no end")
        if _field(head) == FIELD:
            return content
    raise Refused("no-file", f"The form has no field {FIELD!r}.", HINT)


def _field(head: bytes) -> str:
    """Return the name that the headers of one part give it."""
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            header = Message()
            header["content-disposition"] = value.strip()
            return str(header.get_param("name", "", "content-disposition"))
    return ""


def _broken(why: str) -> Refused:
    return Refused("broken-form", f"The form cannot be read: {why}.", HINT)
