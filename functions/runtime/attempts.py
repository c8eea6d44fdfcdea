"""Attempts at a piece of work, counted by its address in a folder that outlives this process.

An attempt that comes to an end, whichever, is forgotten; what stays are those that ended their process, were killed, or
never ended. A work that has used up its attempts is set aside: its event becomes a dead letter at once, and each time
that repair asks for it again it has one attempt more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from layerscope.schemas.errors import SetAside, ShortOfMemory, WorkerDied, WorkStalled

LIMIT: Final = 5
_COUNTED: Final = (WorkerDied, WorkStalled, ShortOfMemory)
_HOST_ENDED: Final = "the function's own process ended meanwhile"


class _Begun(BaseModel):
    model_config = ConfigDict(frozen=True)

    attempts: int = 0
    last: str = _HOST_ENDED


class Attempts:
    """Those at the work of one function."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which is made when the first attempt begins."""
        self._folder = folder

    @contextmanager
    def one(self, work: str) -> Iterator[None]:
        """Count an attempt at `work` for as long as the block runs.

        Raises:
            SetAside: earlier attempts came to no end, and there were enough of them.
            OSError: it cannot be written down.
        """
        place = self._folder / hashlib.sha256(work.encode()).hexdigest()
        earlier = _read(place)
        if earlier.attempts >= LIMIT:
            self._write(place, earlier.model_copy(update={"attempts": LIMIT - 1}))
            raise SetAside(f"set aside after {earlier.attempts} attempts that came to no end: {earlier.last}")
        self._write(place, _Begun(attempts=earlier.attempts + 1))
        with ExitStack() as ended:
            ended.callback(place.unlink, missing_ok=True)
            try:
                yield
            except _COUNTED as error:
                ended.pop_all()  # it stays counted
                self._write(place, _Begun(attempts=earlier.attempts + 1, last=str(error)))
                raise

    def _write(self, place: Path, begun: _Begun) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        place.write_text(begun.model_dump_json())


def _read(place: Path) -> _Begun:
    try:
        return _Begun.model_validate_json(place.read_bytes())
    except (FileNotFoundError, ValidationError):  # none, or its process ended while it was written
        return _Begun()
