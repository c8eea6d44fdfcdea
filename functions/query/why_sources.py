"""Where the facts of *why* come from: the bucket, the event log, the index. Blocking."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

from layerscope.events.log import GroupState, LogUnavailable
from layerscope.functions.query.why_facts import GivenUp, Line, Near, ProcessState, WhyFacts
from layerscope.functions.runtime.backlog import Waiting, event_of, groups, time_of, waiting
from layerscope.functions.runtime.dead_letters import read_dead_letter
from layerscope.functions.runtime.services import Services
from layerscope.schemas import keys
from layerscope.schemas.addresses import address_of
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.health import RepairHealth
from layerscope.schemas.identity import Identity, KeyRefused, identify
from layerscope.schemas.manifests import Manifest, UploadRecord
from layerscope.schemas.products import declared_products
from layerscope.stores import catalogue, damage
from layerscope.stores.catalogue import Standing
from layerscope.stores.object_store import Object, ObjectStore

LOOKED_THROUGH: Final = 20_000
"""Objects of the bucket of uploads among which a name that is not there is looked for."""
LIKE: Final = 0.75
SHOWN: Final = 3


@dataclass(slots=True)
class Watch:
    """The first event of each line, and since when (monotonic seconds) it has been seen there: what tells a line that stands."""

    first: dict[str, tuple[Waiting, float]] = field(default_factory=dict)

    def unmoved(self, function: str, events: tuple[Waiting, ...], now: float) -> timedelta | None:
        """Note what is first now, and return for how long it has been; None where this is the first look at it."""
        if not events:
            self.first.pop(function, None)
            return None
        known = self.first.get(function)
        if known is None or known[0] != events[0]:
            self.first[function] = (events[0], now)
            return None
        return timedelta(seconds=now - known[1])


def facts_of(
    services: Services,
    identity: Identity,
    watch: Watch,
    processes: Mapping[str, ProcessState] | None = None,
) -> WhyFacts:
    """Gather all that is known of a model version; what does not answer, but for the bucket, is left out and noted.

    Raises:
        Unavailable: the object store does not answer.
    """
    store = services.store
    standing = catalogue.standing(store, identity)
    lying = [one for prefix in keys.upload_prefixes(identity) for one in store.list(keys.MODELS, prefix)]
    lines, given_up, log_error = _of_log(services, standing, watch)
    indexed, index_error = _indexed(services, identity, standing)
    return WhyFacts(
        identity=identity,
        now=datetime.now(UTC),
        standing=standing,
        near=_near(store, identity) if standing is None else (),
        superseded=_superseded(lying, standing),
        older_reading=_older_reading(store, standing),
        older=_older(store, standing),
        lines=lines,
        log_error=log_error,
        given_up=given_up,
        indexed=indexed,
        index_error=index_error,
        processes=processes,
        repair=repair_health(store),
    )


def repair_health(store: ObjectStore) -> RepairHealth | None:
    """Return how repair fares; None where no round has ended yet, or what is written of it cannot be read."""
    return damage.read_json(store, keys.PRODUCTS, keys.REPAIR_HEALTH, RepairHealth)


def _of_log(
    services: Services, standing: Standing | None, watch: Watch
) -> tuple[dict[str, Line] | None, dict[str, GivenUp], str]:
    """Return the lines and the dead letters of what has no answer yet; None instead, with the reason, without a log."""
    open_ = _open(standing) if standing is not None else []
    try:
        lines = {name: _line(services, name, watch) for name in open_}
        asked = [one for one in open_ if one != "index"]
        return lines, _given_up(services, standing) if standing is not None and asked else {}, ""
    except LogUnavailable as error:
        return None, {}, str(error)


def _given_up(services: Services, standing: Standing) -> dict[str, GivenUp]:
    """Return the newest dead letter by function, of those since the upload was put."""
    upload, found = standing.upload, dict[str, GivenUp]()
    for one in services.log.backlog(services.tenant.dead_letters, f"{services.tenant.namespace}-nobody"):
        event = event_of(one)
        letter = read_dead_letter(event) if event is not None else None
        at = time_of(one)
        if letter is None or letter.event.subject != upload.identity.subject or at < upload.modified:
            continue
        letters = found[letter.function].letters + 1 if letter.function in found else 1
        found[letter.function] = GivenUp(letter.status, letter.reason, at, letters)
    return found


def _open(standing: Standing) -> list[str]:
    """Return the functions whose lines tell something: those that have not answered yet."""
    if standing.record is None:
        return ["admit", "index"]
    return [*(name for name, one in standing.outcomes.items() if one.manifest is None), "index"]


def _line(services: Services, function: str, watch: Watch) -> Line:
    tenant, uploads_bucket = services.tenant, services.store.bucket_name(keys.MODELS)
    events = tuple(waiting(services.log, function, tenant, uploads_bucket))
    topics = {group: tenant.events for group, _ in groups(function, tenant)}
    if function == "admit":
        topics[tenant.announce_group] = tenant.s3_raw
    read = {one.group for one in events} or topics.keys()
    states = services.log.groups({group: topics[group] for group in read})
    return Line(function, events, _has_readers(states.values()), watch.unmoved(function, events, time.monotonic()))


def _has_readers(states: Iterable[GroupState | None]) -> bool:
    return all(one is not None and one.has_members for one in states)


def _indexed(services: Services, identity: Identity, standing: Standing | None) -> tuple[bool | None, str]:
    try:
        line = services.vectors.line(identity.subject)
    except Unavailable as error:
        return None, str(error)
    if standing is None:
        return line is None, ""
    listed = catalogue.listing(services.store, identity)
    return line is not None and line.fingerprint == catalogue.fingerprint(standing.upload, standing.facts, listed), ""


def _superseded(lying: Iterable[Object], standing: Standing | None) -> tuple[str, ...]:
    """Return the keys of models with the same identity that are not current."""
    if standing is None:
        return ()
    found = []
    for one in lying:
        try:
            named = identify(one.key)
        except KeyRefused:
            continue
        if named.identity == standing.upload.identity and not named.sidecar and one.key != standing.upload.key:
            found.append(one.key)
    return tuple(found)


def _older_reading(store: ObjectStore, standing: Standing | None) -> int | None:
    """Return the recipe of an earlier admit that has read the very upload which the present one has not."""
    if standing is None or standing.record is not None:
        return None
    upload = standing.upload
    for recipe in range(UploadRecord.RECIPE - 1, 0, -1):
        key = keys.upload_record(upload.identity, recipe, upload.etag, upload.sidecars)
        if store.head(keys.PRODUCTS, key) is not None:
            return recipe
    return None


def _older(store: ObjectStore, standing: Standing | None) -> dict[str, Manifest]:
    """Return of each product that is not there the newest manifest at another address."""
    if standing is None or standing.facts is None:
        return {}
    found: dict[str, Manifest] = {}
    for product in declared_products():
        name = product.declared.name
        if standing.outcomes[name].manifest is not None:
            continue
        place = keys.manifests_of(standing.facts.identity, standing.facts.content, name)
        listed = [one for one in store.list(keys.PRODUCTS, place) if not one.key.endswith(".failed.json")]
        for one in sorted(listed, key=lambda one: one.modified):
            if address_of(product, standing.facts) in one.key:
                continue
            earlier = damage.read_listed(store, keys.PRODUCTS, one, Manifest)
            if earlier is not None:
                found[name] = earlier
    return found


def _near(store: ObjectStore, identity: Identity) -> tuple[Near, ...]:
    """Return the objects whose keys are most like a name that is not there, the likest first."""
    likeness: dict[str, float] = {}
    for one in islice(store.list(keys.MODELS), LOOKED_THROUGH):
        ratio = difflib.SequenceMatcher(None, identity.subject, _stem(one.key)).quick_ratio()
        if ratio >= LIKE:
            likeness[one.key] = difflib.SequenceMatcher(None, identity.subject.lower(), _stem(one.key).lower()).ratio()
    chosen = sorted((key for key in likeness if likeness[key] >= LIKE), key=lambda key: (-likeness[key], key))[:SHOWN]
    return tuple(_named(key) for key in chosen)


def _stem(key: str) -> str:
    folder, separator, file = key.rpartition("/")
    return f"{folder}{separator}{file.rpartition('.')[0] or file}"


def _named(key: str) -> Near:
    try:
        return Near(key, identify(key).identity.subject)
    except KeyRefused as refused:
        return Near(key, None, str(refused))
