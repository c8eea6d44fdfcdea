"""Where things lie: the one place that builds keys of objects in the buckets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from layerscope.schemas.digests import digest, sha256
from layerscope.schemas.identity import MODEL_EXTENSIONS, SIDECARS, Identity

MODELS: Final = "models"
DATASETS: Final = "datasets"
PRODUCTS: Final = "products"
BUCKETS: Final = (MODELS, DATASETS, PRODUCTS)

UPLOADS: Final = "uploads/"
REFUSED_KEYS: Final = "uploads/_refused/"
MANIFESTS: Final = "manifests/"
BLOBS: Final = "blobs/"
REPLAYS: Final = "replays/"
BESIDE: Final = "beside/"
DEAD_LETTERS: Final = "dead-letters/"
NOTIFICATIONS: Final = "notifications/"
REPAIR_HEALTH: Final = "status/repair.json"


def upload(identity: Identity, extension: str = ".safetensors") -> str:
    """Return the key under which our own client puts a model."""
    if extension not in MODEL_EXTENSIONS:
        raise ValueError(f"{extension!r} is not one of {', '.join(MODEL_EXTENSIONS)}")
    return f"{identity.subject}{extension}"


def sidecar(identity: Identity, ending: str = ".history.json") -> str:
    """Return the key under which our own client puts a sidecar."""
    if ending not in SIDECARS:
        raise ValueError(f"{ending!r} is not one of {', '.join(SIDECARS)}")
    return f"{identity.subject}{ending}"


def upload_prefixes(identity: Identity) -> tuple[str, str]:
    """Return the prefixes under which every key with this identity lies (and some with others)."""
    return f"{identity.subject}.", f"{identity.dataset}/model_{identity.model}_v{identity.version}."


def uploads_of(identity: Identity) -> str:
    """Return the prefix of what the uploads under this identity came to."""
    return f"{UPLOADS}{identity.subject}/"


def upload_record(
    identity: Identity, recipe: int, etag: str, sidecars: dict[str, str], given: Mapping[str, str] | None = None
) -> str:
    """Return where it is written what an upload came to, read by `admit` of this recipe with these sidecars' ETags.

    `given` are those of the object's metadata that decide how it is read; where there are none, the key is as ever.
    """
    read = {"etag": etag, "sidecars": sidecars} | ({"metadata": dict(given)} if given else {})
    return f"{uploads_of(identity)}r{recipe}-{digest(read)}.json"


def refused_key(key: str) -> str:
    """Return where it is written that an upload's key breaks the rule."""
    return f"{REFUSED_KEYS}{sha256(key.encode('utf-8', 'surrogateescape'))}.json"


def manifests_of(identity: Identity, content: str | None = None, product: str | None = None) -> str:
    """Return the prefix of the manifests of one model version, of one of its contents, or of one of its products."""
    return "/".join([f"{MANIFESTS}{identity.subject}", *[part for part in (content, product) if part], ""])


def manifest(identity: Identity, content: str, product: str, address: str) -> str:
    """Return the key whose existence says that a product is complete, or refused."""
    return f"{manifests_of(identity, content, product)}{address}.json"


def failure(outcome: str) -> str:
    """Return where the failure is recorded that took the place of the outcome at key `outcome`."""
    return f"{outcome.removesuffix('.json')}.failed.json"


def blob(content_sha256: str) -> str:
    """Return the key of bytes by their SHA-256."""
    return f"{BLOBS}{content_sha256}"


def replay(run: str, part: str) -> str:
    """Return the key of a part of a replay's run: plan, progress, cancel, end, accept or accepted."""
    return f"{REPLAYS}{run}/{part}.json"


def beside(run: str, outcome: str) -> str:
    """Return where a run keeps what it made once more, until that takes the place of the outcome at key `outcome`."""
    return f"{BESIDE}{run}/{outcome}"


def dead_letter(identifier: str) -> str:
    """Return the key of a dead letter."""
    return f"{DEAD_LETTERS}{identifier}.json"


def discarded(identifier: str) -> str:
    """Return where it is written that nothing is to be done about a dead letter."""
    return f"{DEAD_LETTERS}{identifier}.discarded.json"


def notification(identifier: str) -> str:
    """Return where it is written that an outcome was told to the webhook, or is being told."""
    return f"{NOTIFICATIONS}{identifier}.json"


def dataset_description(name: str) -> str:
    """Return the key of a dataset's description, which is written last."""
    return f"{name}/dataset.json"


def dataset_part(name: str, content_sha256: str) -> str:
    """Return the key of the arrays of one part of a dataset, by their SHA-256."""
    return f"{name}/{content_sha256}.npz"
