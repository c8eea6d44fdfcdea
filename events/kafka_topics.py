"""Topics on Kafka, made when they are missing: asked for again while the brokers say that they cannot yet.

Part of `events.kafka_log`. Brokers that have just started, or lost their controller, refuse for some seconds what they do
afterwards; and a connection that was open before is found broken when it is next used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from layerscope.events.kafka_client import faults
from layerscope.events.topics import Topic

logger = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 120.0  # a cluster of several brokers starts within a minute
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 2.0

# Besides what the library calls retriable: too few brokers are registered and unfenced, which is how a cluster begins.
_PASSING: Final = (faults.InvalidReplicationFactorError,)


def make_topics(
    admin: Any,
    topics: Iterable[Topic],
    replication_factor: int,
    *,
    wait: Callable[[float], object],
    patience: float = PATIENCE_SECONDS,
) -> None:
    """Make the topics that are not there, and return once each of their partitions has a leader.

    Args:
        admin: the library's KafkaAdminClient.
        topics: what to make; one that is there stays as it is.
        replication_factor: -1 for what the brokers are set to.
        wait: pauses for so many seconds; what it returns is true where nobody needs the topics any more.
        patience: seconds for which a fault that passes by itself is answered by asking again.

    Raises:
        KafkaError: the brokers refuse a topic for good, or still refuse it, or are still away, when patience ends.
    """
    wanted = {
        topic.name: {
            "num_partitions": topic.partitions,
            "replication_factor": replication_factor,
            "configs": {"retention.ms": str(-1 if topic.retention_ms is None else topic.retention_ms)},
        }
        for topic in topics
    }
    began, pause, reported = time.monotonic(), FIRST_PAUSE_SECONDS, ""
    while (fault := _standing_fault(admin, wanted)) is not None:
        if not _passes(fault):
            raise fault
        if (waited := time.monotonic() - began) > patience:
            raise type(fault)(f"{_sentence(fault)}; asked again and again for {waited:.0f} s")
        if wait(pause):
            raise faults.Cancelled("the log is being closed")
        if pause == LONGEST_PAUSE_SECONDS and _sentence(fault) != reported:
            reported = _sentence(fault)
            logger.warning("the topics cannot be made yet, asking again: %s", reported)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _standing_fault(admin: Any, wanted: Mapping[str, Any]) -> faults.KafkaError | None:
    """Ask once for the topics, and return why one of them cannot be used yet; None when all can."""
    try:
        for made in admin.create_topics(dict(wanted), raise_errors=False)["topics"]:
            fault = faults.for_code(made["error_code"])
            if fault not in (faults.NoError, faults.TopicAlreadyExistsError):
                return fault(f"{made['name']}: {made['error_message'] or 'no reason is given'}")
        for described in admin.describe_topics(list(wanted)):
            if (code := _unusable(described)) is not None:
                return faults.for_code(code)(f"{described['name']}: it is not ready")
    except faults.KafkaError as error:
        return error
    except RuntimeError as error:  # the library's word where each broker that it takes for the controller is none
        return faults.NotControllerError(str(error))
    return None


def _unusable(described: Mapping[str, Any]) -> int | None:
    """Return the error of a topic, or of its first partition without a leader."""
    if described["error_code"]:
        return int(described["error_code"])
    leaderless = [one["error_code"] for one in described["partitions"] if one["leader_id"] < 0]
    return (leaderless[0] or faults.LeaderNotAvailableError.errno) if leaderless else None


def _passes(fault: faults.KafkaError) -> bool:
    return bool(fault.retriable) or isinstance(fault, _PASSING)


def _sentence(fault: faults.KafkaError) -> str:
    return " ".join(map(str, fault.args)) or type(fault).__name__
