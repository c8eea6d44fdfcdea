"""Where a system is looked for when nobody says which: in the nearest `.layerscope`, or as the user's programs remember."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

FOLDER: Final = Path(".layerscope")


def nearest_folder() -> Path | None:
    """Return the nearest `.layerscope` above the working folder that holds a system."""
    here = Path.cwd()
    folders = (folder / FOLDER for folder in (here, *here.parents))
    return next((folder for folder in folders if systems_in(folder)), None)


def systems_in(folder: Path) -> list[Path]:
    """Return the systems of a `.layerscope`, the one made last first."""
    with suppress(OSError):
        files = sorted(folder.glob("*/system.json"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
        return [file.parent for file in files]
    return []


def pointer() -> Path:
    """Return the file that names the system made last.

    Raises:
        OSError: nobody knows where this user's home is.
    """
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    except RuntimeError as error:
        raise OSError(errno.ENOENT, "this user has no home") from error
    return Path(state) / "layerscope" / "current"
