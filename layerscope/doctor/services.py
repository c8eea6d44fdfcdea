"""The services that the settings name: whether they take us, and whether what `init` makes in them is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import httpx

from layerscope.dataplane import manifests
from layerscope.doctor.checks import Check, NotLookedAt, Wrong
from layerscope.doctor.network import Peer, address_of, addresses_of, certificates, connections
from layerscope.events.kafka_report import KafkaReport, TopicState, opened
from layerscope.events.log import GroupState, LogUnavailable
from layerscope.events.loopback import is_loopback
from layerscope.events.tls import client_context
from layerscope.events.topics import Tenant
from layerscope.functions.runtime import services
from layerscope.functions.runtime.settings import EXTERNAL, Settings
from layerscope.notification_target import advice as target_advice
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.keys import DATASETS, MODELS
from layerscope.stores import datasets
from layerscope.stores.cache import RedisCache
from layerscope.stores.s3_store import S3Store
from layerscope.stores.vector_store import MilvusStore
from layerscope.systems import MANIFESTS

T = TypeVar("T")
STORE: Final = "object store"
KAFKA: Final = "Kafka"
MILVUS: Final = "Milvus"
REDIS: Final = "Redis"
INIT: Final = "layerscope init, with the keys of an administrator"


@dataclass(frozen=True, slots=True)
class Examined:
    """What is examined; `query` is the URL of the system's `query`, None where nobody says."""

    settings: Settings
    query: str | None
    store: S3Store = field(init=False)
    tenant: Tenant = field(init=False)

    def __post_init__(self) -> None:
        """Make what the looks use; it connects when they do.

        Raises:
            CertificateUnusable: a file of certificates is none.
        """
        object.__setattr__(self, "store", services.object_store(self.settings))
        object.__setattr__(self, "tenant", services.tenant(self.settings))

    def checks(self) -> list[Check]:
        """Return all looks, in the order in which what they find is to be mended."""
        peers = {peer.service: peer for peer in _peers(self.settings)}
        store, kafka = peers[STORE].checks, peers[KAFKA].checks
        milvus = peers[MILVUS].checks if MILVUS in peers else ()
        topics = "Kafka: topics"
        return [
            *connections(peers.values()),
            *certificates(peers.values()),
            Check("object store: keys", self._keys, needs=store),
            Check("Kafka: user", self._user, needs=kafka),
            Check("object store: buckets", self._buckets, needs=("object store: keys",)),
            Check(topics, self._topics, needs=("Kafka: user",)),
            Check("object store: notification", self._notification, needs=("object store: buckets",)),
            Check("Kafka: groups", self._groups, needs=(topics,)),
            Check("Milvus: index", self._index, needs=milvus),
            Check("Redis: cache", self._cache, needs=peers[REDIS].checks),
            Check("dataset digits", self._digits, needs=("object store: buckets",)),
            Check("query", self._query),
        ]

    def _keys(self) -> str:
        _answered(self.store.missing_buckets, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the web identity")
        return "taken"

    def _buckets(self) -> str:
        if missing := self.store.missing_buckets():
            named = ", ".join(self.store.bucket_name(one) for one in missing)
            raise Wrong(f"missing: {named}", INIT)
        return ", ".join(self.settings.buckets.values())

    def _notification(self) -> str:
        arn, bucket = self.settings.s3_notification_arn, self.store.bucket_name(MODELS)
        if arn == EXTERNAL:
            raise NotLookedAt("S3_NOTIFICATION_ARN is external: somebody else sets it")
        try:
            there = self.store.has_notification(arn)
        except Unavailable as error:
            if "AccessDenied" in str(error):
                raise NotLookedAt(
                    "these keys may not read it (s3:GetBucketNotification); an administrator's may"
                ) from error
            raise Wrong(str(error), "see what the object store logs") from error
        if not there:
            known = target_advice(
                arn,
                self.settings.kafka_bootstrap_servers,
                self.tenant.s3_raw,
                services.kafka_security(self.settings),
            )
            raise Wrong(f"{bucket} does not notify {arn} of uploads", f"{INIT}.\n{known}")
        return f"{bucket} notifies {arn}"

    def _user(self) -> str:
        brokers = self._asked(KafkaReport.brokers, "KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_… and KAFKA_SSL_…")
        return f"taken, by {len(brokers)} broker{'s' if len(brokers) > 1 else ''}"

    def _topics(self) -> str:
        wanted = {topic.name: topic.partitions for topic in self.tenant.topics}
        brokers = len(self._asked(KafkaReport.brokers, "let its user describe the cluster"))
        found = self._asked(lambda report: report.topics(wanted), "let its user describe the topics")
        owner = "its owner has to make it" if self.settings.layerscope_topics == EXTERNAL else "layerscope init"
        faults = [_topic_fault(name, found[name], count, brokers, owner) for name, count in wanted.items()]
        if known := [one for one in faults if one is not None]:
            raise Wrong("; ".join(found for found, _ in known), "; ".join(dict.fromkeys(do for _, do in known)))
        return ", ".join(wanted)

    def _groups(self) -> str:
        wanted = groups(self.tenant)
        found = self._asked(lambda report: report.groups(wanted), "let its user list and describe groups")
        if idle := sorted(name for name, one in found.items() if one is None or not one.has_members):
            mend = f"kubectl get triggers,kafkasources -n {self.tenant.namespace}; locally, layerscope status"
            raise Wrong(f"nobody reads for {', '.join(idle)}", mend)
        return f"all {len(found)} are read for; {_unfinished(found.values())}"

    def _index(self) -> str:
        token = self.settings.milvus_token.get_secret_value()
        vectors = MilvusStore(self.settings.milvus_uri, token, cafile=self.settings.milvus_ssl_cafile)
        try:
            rows = _answered(vectors.catalogue, "MILVUS_URI and MILVUS_TOKEN; layerscope init makes the database")
        finally:
            vectors.close()
        return f"answers; {len(rows)} models"

    def _cache(self) -> str:
        return asyncio.run(self._cached())

    async def _cached(self) -> str:
        url, cafile = self.settings.redis_url.get_secret_value(), self.settings.redis_ssl_cafile
        cache = RedisCache(url, cafile=cafile, namespace=self.tenant.namespace)
        try:
            await cache.check()
        except Unavailable as error:
            raise Wrong(
                str(error), "the user and password in REDIS_URL, which begins with rediss:// for TLS"
            ) from error
        finally:
            await cache.close()
        return "answers"

    def _digits(self) -> str:
        found = _answered(lambda: datasets.describe(self.store, "digits"), f"let the keys read {DATASETS}")
        if found is None:
            raise Wrong("missing", INIT)
        return "there"

    def _query(self) -> str:
        if self.query is None:
            raise NotLookedAt("LAYERSCOPE_URL does not say where it is")
        try:
            answer = httpx.get(f"{self.query}/health/readiness", timeout=30, trust_env=not is_loopback(self.query))
        except httpx.TransportError as error:
            mend = f"kubectl get ksvc query -n {self.tenant.namespace}; locally, layerscope status"
            raise Wrong(f"nothing answers at {self.query} ({type(error).__name__})", mend) from error
        if not answer.is_success:
            raise Wrong(f"{self.query} answers {answer.status_code}: {answer.text[:200]}", "see its log")
        return f"{self.query} is ready"

    def _asked(self, question: Callable[[KafkaReport], T], advice: str) -> T:
        servers, security = self.settings.kafka_bootstrap_servers, services.kafka_security(self.settings)
        try:
            with opened(servers, security) as report:
                return question(report)
        except LogUnavailable as error:
            raise Wrong(str(error), advice) from error


def groups(tenant: Tenant) -> dict[str, str]:
    """Return the consumer groups of a whole system, and what each reads."""
    declared = manifests.load(MANIFESTS)
    read = {tenant.trigger_group(trigger.name): tenant.events for trigger in declared.triggers}
    return {**read, tenant.announce_group: tenant.s3_raw, tenant.dead_letters_group: tenant.dead_letters}


def _peers(settings: Settings) -> list[Peer]:
    store_tls = client_context(settings.aws_ca_bundle) if settings.s3_endpoint.startswith("https:") else None
    redis = settings.redis_url.get_secret_value()
    redis_tls = client_context(settings.redis_ssl_cafile) if redis.startswith("rediss:") else None
    store_port, redis_port = (443 if store_tls else 80), 6379
    peers = [
        Peer(STORE, "S3_ENDPOINT", [address_of(settings.s3_endpoint, store_port)], store_tls, "AWS_CA_BUNDLE"),
        Peer(
            KAFKA,
            "KAFKA_BOOTSTRAP_SERVERS",
            addresses_of(settings.kafka_bootstrap_servers),
            services.kafka_security(settings).tls,
            "KAFKA_SSL_CAFILE",
        ),
        Peer(REDIS, "REDIS_URL", [address_of(redis, redis_port)], redis_tls, "REDIS_SSL_CAFILE"),
    ]
    if settings.milvus_uri.startswith(("http:", "https:", "tcp:")):
        tls = client_context(settings.milvus_ssl_cafile) if settings.milvus_uri.startswith("https:") else None
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
        at = address_of(settings.milvus_uri, 443 if tls else 19530)
        peers.insert(2, Peer(MILVUS, "MILVUS_URI", [at], tls, "MILVUS_SSL_CAFILE"))
    return peers


def _answered(question: Callable[[], T], advice: str) -> T:
    with contextlib.suppress(Unavailable):
        return question()
    try:  # on a busy machine the first answer may be late, and is no fault
        return question()
    except Unavailable as error:
        raise Wrong(str(error), advice) from error


def _topic_fault(
    name: str, found: TopicState | None, partitions: int, brokers: int, owner: str
) -> tuple[str, str] | None:
    """Return what is wrong with a topic, and what to do; None: it is well."""
    if found is None:
        return f"{name} is missing", owner
    if found.partitions < partitions:
        more = f"kafka-topics.sh --alter --topic {name} --partitions {partitions}"
        return f"{name} has {found.partitions} of {partitions} partitions", more
    if found.replicas < 2 <= brokers:
        lonely = f"{name} has 1 replica on {brokers} brokers: a broker that is lost takes it along"
        return lonely, f"raise the replicas of {name} with kafka-reassign-partitions.sh"
    if found.behind:
        return f"{name} has {found.behind} partitions with replicas that are behind", "see which brokers are down"
    return None


def _unfinished(found: object) -> str:
    lags = [one.lag for one in found if isinstance(one, GroupState) and one.lag is not None]  # type: ignore[attr-defined]
    return f"{sum(lags)} records are not finished"
