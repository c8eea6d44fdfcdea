"""Images as a node runs them, without a container engine: their root read-only, their user, their environment.

Needs root and buildah, whose storage holds the images. All containers share the machine's network.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

# In mount namespaces of its own: the image's root, which nothing can be written to, and a scratch folder at /tmp.
_ENTER = """
set -eu
root=$1 scratch=$2 user=$3
shift 3
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
for folder in proc dev sys; do mount --rbind "/$folder" "$root/$folder"; done
mount --bind "$scratch" "$root/tmp"
exec setpriv --no-new-privs --bounding-set -all,+sys_chroot,+setuid,+setgid \\
  chroot --groups= --userspec="$user" "$root" "$@"
"""


@dataclass(frozen=True)
class Image:
    """An image, unpacked at `root`; `config` is what it says of itself."""

    name: str
    root: Path
    config: Mapping[str, Any]

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return what a container's processes have: the image's variables, and those it is given."""
        return {**dict(one.split("=", 1) for one in self.config["Env"]), **given}

    def command(self, scratch: Path, *arguments: str, entrypoint: Sequence[str] = (), user: str = "") -> list[str]:
        """Return the command that starts a container."""
        entered = entrypoint or self.config["Entrypoint"]
        owner = user or self.config["User"]
        inside = ["sh", "-c", _ENTER, "enter", str(self.root), str(scratch), owner]
        return ["unshare", "--mount", "--propagation", "private", *inside, *entered, *arguments]

    def run(
        self,
        scratch: Path,
        *arguments: str,
        entrypoint: Sequence[str] = (),
        user: str = "",
        given: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        return subprocess.run(
            self.command(scratch, *arguments, entrypoint=entrypoint, user=user),
            env=self.environment(given),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


def buildah(*arguments: str) -> str:
    """Return what buildah says."""
    return subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def unpacked(name: str) -> Iterator[Image]:
    """Unpack an image, and throw that away."""
    config = json.loads(buildah("inspect", "--type", "image", name))["OCIv1"]["config"]
    container = buildah("from", "--pull-never", name)
    try:
        yield Image(name, Path(buildah("mount", container)), config)
    finally:
        buildah("rm", container)
