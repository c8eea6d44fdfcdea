"""What must be there before anything can run: buckets, notifications, topics, and the dataset `digits`. Idempotent."""

from __future__ import annotations

from collections.abc import Callable

from layerscope.datasets.digits import CLASSES, SOURCE, digits
from layerscope.functions.runtime.services import Services
from layerscope.stack.servers import NOTIFICATION_ARN
from layerscope.stores import datasets
from layerscope.stores.s3_store import S3Store


def initialise(services: Services, say: Callable[[str], None]) -> None:
    """Make what is missing of buckets, notifications, topics and `digits`."""
    services.log.ensure_topics()
    services.store.ensure_buckets()
    if isinstance(services.store, S3Store):
        services.store.set_notification(NOTIFICATION_ARN)
    if datasets.describe(services.store, "digits") is None:
        say("making the dataset digits from scikit-learn")
        datasets.write(services.store, "digits", CLASSES, digits(), source=SOURCE)
