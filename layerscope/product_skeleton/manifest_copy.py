"""The product's manifest for Knative: a copy of that of `confusion_matrix`, which stands on the same product."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

COPIED: Final = "confusion_matrix"
BASE: Final = Path("knative/base")


def add_manifest(checkout: Path, name: str) -> Iterator[str]:
    """Write the manifest and name it in the kustomization, unless they are there; yield what was written."""
    manifest, kustomization = BASE / f"functions/{name}.yaml", BASE / "kustomization.yaml"
    if not (checkout / manifest).exists():
        text = (checkout / BASE / f"functions/{COPIED}.yaml").read_text(encoding="utf-8")
        text = f"# From the predictions.\n{text.partition(chr(10))[2]}"
        text = text.replace(COPIED, name).replace(COPIED.replace("_", "-"), name.replace("_", "-"))
        (checkout / manifest).write_text(text, encoding="utf-8")
        yield str(manifest)
    lines = (checkout / kustomization).read_text(encoding="utf-8").splitlines(keepends=True)
    if f"  - functions/{name}.yaml\n" not in lines:
        lines.insert(lines.index(f"  - functions/{COPIED}.yaml\n") + 1, f"  - functions/{name}.yaml\n")
        (checkout / kustomization).write_text("".join(lines), encoding="utf-8")
        yield str(kustomization)
