"""What must be there before anything can run: topics, buckets, a database for the index, `digits`, probes, notifications.

Idempotent. What the settings call external has another owner and is left alone; what others have set next to ours stays.
"""

from __future__ import annotations

from collections.abc import Callable

from layerscope.datasets.digits import CLASSES, SOURCE, digits
from layerscope.events.log import LogUnavailable
from layerscope.functions.runtime.services import Services, kafka_security
from layerscope.functions.runtime.settings import EXTERNAL, Settings
from layerscope.notification_target import advice
from layerscope.schemas.errors import LayerscopeError, Unavailable
from layerscope.schemas.keys import MODELS
from layerscope.stores import common_probe, datasets
from layerscope.stores.s3_store import NotificationRefused, S3Store
from layerscope.stores.vector_store import MilvusStore


class NoNotifications(LayerscopeError):
    """The store cannot notify of uploads; all else is there. The message says how to give it a target."""


def initialise(services: Services, say: Callable[[str], None], settings: Settings | None = None) -> None:
    """Make what is missing.

    Args:
        services: where.
        say: announces what takes long.
        settings: where the services come from; None: a directory, which notifies of uploads itself.

    Raises:
        Unavailable: a service does not answer.
        NoNotifications: the store cannot notify of uploads.
    """
    if settings is None or settings.layerscope_topics != EXTERNAL:
        try:
            services.log.ensure_topics(services.tenant.topics)
        except LogUnavailable as error:
            raise Unavailable(str(error)) from error
    services.store.ensure_buckets()
    if isinstance(services.vectors, MilvusStore):
        services.vectors.ensure_database()
    if datasets.describe(services.store, "digits") is None:
        say("making the dataset digits from scikit-learn")
        datasets.write(services.store, "digits", CLASSES, digits(), source=SOURCE)
    common_probe.ensure(services.store)
    if settings is not None and isinstance(services.store, S3Store) and settings.s3_notification_arn != EXTERNAL:
        _notify(services.store, services.tenant.s3_raw, settings)


def _notify(store: S3Store, topic: str, settings: Settings) -> None:
    """Set the notification last: its target is what an operator has to give the store, and the rest need not wait."""
    arn, bucket = settings.s3_notification_arn, store.bucket_name(MODELS)
    try:
        store.set_notification(arn)
    except NotificationRefused as error:
        remedy = advice(arn, settings.kafka_bootstrap_servers, topic, kafka_security(settings))
        raise NoNotifications(f"the store does not notify {arn} of the bucket {bucket}: {error}\n{remedy}") from error
