"""The overlays, as kustomize renders them, and what kubeconform says of them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from layerscope.deployment.kubernetes_tools import KubernetesTools
from layerscope.schemas.errors import LayerscopeError

KNATIVE: Final = Path(__file__).parents[1] / "knative"
WITHOUT_SCHEMA: Final = ("KafkaTopic", "KafkaSource", "KafkaSink")
"""Kinds whose definitions no registry has; those that are found beside the checkout are held against them."""


class InvalidOverlay(LayerscopeError):
    """An overlay cannot be rendered; the message is kustomize's."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an overlay's resources: how many there are, what is wrong with which, and which kinds were passed over."""

    resources: int
    faults: tuple[str, ...]
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        """Say it in a line."""
        valid = self.resources - len(self.faults) - len(self.skipped)
        passed_over = f" ({', '.join(sorted(set(self.skipped)))}: no schema at hand)" if self.skipped else ""
        return f"{self.resources} resources: {valid} valid, {len(self.faults)} invalid, {len(self.skipped)} skipped{passed_over}"


def overlays() -> dict[str, Path]:
    """Return the folder of each overlay, by its name."""
    return {path.parent.name: path.parent for path in sorted((KNATIVE / "overlays").glob("*/kustomization.yaml"))}


def components() -> dict[str, Path]:
    """Return the folder of each component, by its name."""
    return {path.parent.name: path.parent for path in sorted((KNATIVE / "components").glob("*/kustomization.yaml"))}


def render(overlay: Path, tools: KubernetesTools) -> str:
    """Return what an overlay says.

    Raises:
        InvalidOverlay: kustomize refuses it.
    """
    ended = subprocess.run(
        (str(tools.kustomize), "build", str(overlay.resolve())), capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise InvalidOverlay(f"{overlay}: {ended.stderr.strip()}")
    return ended.stdout


def validate(rendered: str, tools: KubernetesTools) -> Verdict:
    """Hold a rendering against the schemas of its kinds; an unknown field, or a key said twice, is a fault."""
    locations = [f"-schema-location={one}" for one in tools.schemas]
    missing = [kind for kind in WITHOUT_SCHEMA if not _has_schema(kind, tools)]
    command = (str(tools.kubeconform), "-strict", "-verbose", "-output=json", f"-skip={','.join(missing)}", *locations)
    ended = subprocess.run(command, input=rendered, capture_output=True, text=True, check=False)
    found = json.loads(ended.stdout)["resources"]
    by_status: dict[str, list[dict[str, str]]] = {}
    for one in found:
        by_status.setdefault(one["status"], []).append(one)
    sound = {"statusValid", "statusSkipped"}
    faults = [f"{one['kind']} {one['name']}: {one['msg']}" for one in found if one["status"] not in sound]
    return Verdict(len(found), tuple(faults), tuple(one["kind"] for one in by_status.get("statusSkipped", [])))


def _has_schema(kind: str, tools: KubernetesTools) -> bool:
    return any(any(Path(one).parent.glob(f"{kind.lower()}-*.json")) for one in tools.schemas)
