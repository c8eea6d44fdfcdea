"""What must be there before anything can run: buckets, notifications, topics, and the dataset `digits`. Idempotent."""

from __future__ import annotations

from collections.abc import Callable

from functions import datasets
from functions.s3_store import S3Store
from functions.services import Services
from layerscope.digits import CLASSES, SOURCE, digits
from layerscope.servers import NOTIFICATION_ARN


def initialise(services: Services, say: Callable[[str], None]) -> None:
    """Make what is missing of buckets, notifications, topics and `digits`."""
    services.log.ensure_topics()
    services.store.ensure_buckets()
    if isinstance(services.store, S3Store):
        services.store.set_notification(NOTIFICATION_ARN)
    if datasets.describe(services.store, "digits") is None:
        say("making the dataset digits from scikit-learn")
        datasets.write(services.store, "digits", CLASSES, digits(), source=SOURCE)
