"""`python -m layerscope.deployment` writes the manifests that are made; `--check` tells which are not what the code says.

`--check` also renders every overlay, and folders named after it, holds each against the schemas of its kinds, and tells
where a Trigger waits too short.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from layerscope.deployment import func_projects
from layerscope.deployment.documentation import with_table
from layerscope.deployment.kubernetes_tools import KubernetesTools, ToolsMissing, install
from layerscope.deployment.manifests import HEADER, files
from layerscope.deployment.overlays import KNATIVE, InvalidOverlay, overlays, render, validate
from layerscope.deployment.patience import impatient

RENDERED: Final = "laptop"
"""The overlay that the local data plane reads."""

FUNCTIONS: Final = KNATIVE.parent / "functions"
OPERATE: Final = KNATIVE.resolve().parent / "docs" / "operate.md"
AGAIN: Final = "`make manifests` writes them"


def main() -> None:
    """Write the manifests and say which, or check them and those of the operator's own overlays."""
    arguments = sys.argv[1:]
    if "--check" in arguments:
        _check([Path(one) for one in arguments if one != "--check"])
        return
    differing, wanted = _differing()
    for path in differing:
        if path in wanted:
            _write(path, wanted[path])
        else:
            path.unlink()
            _say(f"removed {_shown(path)}")
    try:
        rendered = _rendering(install(_say))
    except ToolsMissing as error:
        sys.exit(f"what `layerscope up` reads is not rendered: {error}")
    if rendered != _rendered_text():
        _write(_rendered_file(), rendered)


def _check(own: list[Path]) -> None:
    if differing := _differing()[0]:
        names = ", ".join(map(_shown, differing))
        sys.exit(f"these files are not what the code says: {names}; {AGAIN}")
    try:
        tools = install(_say)
    except ToolsMissing as error:
        if os.environ.get("CI"):
            sys.exit(str(error))
        _say(f"overlays are not rendered: {error}")
        return
    if _rendered_text() != _rendering(tools):
        sys.exit(f"{_shown(_rendered_file())} is not what the overlay renders to; {AGAIN}")
    faults = 0
    for name, folder in {**overlays(), **{str(one): one for one in own}}.items():
        try:
            rendered = render(folder, tools)
        except InvalidOverlay as error:
            sys.exit(str(error))
        verdict, too_short = validate(rendered, tools), impatient(rendered)
        _say("\n  ".join([f"{name}: {verdict}", *verdict.faults, *too_short]))
        faults += len(verdict.faults) + len(too_short)
    if faults:
        sys.exit(1)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    _say(f"wrote {_shown(path)}")


def _shown(path: Path) -> str:
    return "docs/operate.md" if path == OPERATE else str(path.relative_to(KNATIVE.parent))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _differing() -> tuple[list[Path], dict[Path, str]]:
    """Return the files that are not what the code says, and what it says of each."""
    wanted = {KNATIVE / name: text for name, text in files().items()}
    wanted |= {FUNCTIONS / name: text for name, text in func_projects.files().items()}
    if OPERATE.exists():  # it is in the checkout alone
        wanted[OPERATE] = with_table(OPERATE.read_text(encoding="utf-8"))
    there = {path for path in {*(KNATIVE / "base").rglob("*.yaml"), *wanted} if path.exists()}
    present = {path: path.read_text(encoding="utf-8") for path in there}
    return sorted(path for path in wanted.keys() | there if wanted.get(path) != present.get(path)), wanted


def _rendered_file() -> Path:
    return KNATIVE / "rendered" / f"{RENDERED}.yaml"


def _rendered_text() -> str:
    return _rendered_file().read_text(encoding="utf-8") if _rendered_file().exists() else ""


def _rendering(tools: KubernetesTools) -> str:
    return f"{HEADER}# The overlay {RENDERED}, as kustomize renders it.\n{render(overlays()[RENDERED], tools)}"


if __name__ == "__main__":
    main()
