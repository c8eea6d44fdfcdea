"""A disk that is full: nothing is given up, `status` and `why` name it, and all is done once there is space again."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerscope.schemas import keys
from layerscope.schemas.errors import Unavailable
from tests.chaos.ledger import Ledger
from tests.chaos.troubled.promise import SETTLE_SECONDS, failures, named, promised
from tests.chaos.troubled.troubled_stack import DRIVE, EVENT_LOG, SCRATCH, Troubled
from tests.small_networks import tiny
from tests.stack import eventually

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(autouse=True)
def _small_disks(troubled: Troubled) -> None:
    if not troubled.disks:
        pytest.skip("a small disk is a tmpfs, and only root may mount one")


@pytest.mark.parametrize(
    ("disk", "cause"),
    [
        (DRIVE, "the object store answers XMinioStorageFull: its disk is full, no space left on it"),
        (SCRATCH, "the node has no more space on its disk to give: No space left on device"),
    ],
    ids=["the store's", "the functions' scratch folder"],
)
def test_a_full_disk_is_named_and_all_is_complete_once_there_is_space(
    troubled: Troubled, disk: Path, cause: str
) -> None:
    with promised(troubled, f"full-{disk.name}", tiny(700 + len(disk.name))) as subject, troubled.full(disk):
        troubled.deliver()
        named(
            troubled,
            subject,
            f"admit answered 503: {cause}",
            f"admit was offered its event and answered 503: {cause}",
        )


def test_a_full_disk_of_kafka_is_named_and_uploads_meanwhile_are_found(troubled: Troubled) -> None:
    meanwhile = Ledger(troubled.real, [tiny(731)])
    with promised(troubled, "full-event-log", tiny(730)) as subject, troubled.full(EVENT_LOG):
        troubled.deliver()
        said = f"the disk of {troubled.real.stack.directory / EVENT_LOG} is full, so that it can write nothing there"
        named(troubled, subject, said, said)
        meanwhile.put("digits/full-event-log/2", 0)
    meanwhile.settle(SETTLE_SECONDS)
    assert failures(troubled.real, "digits/full-event-log/2") == []


def test_an_upload_to_a_full_store_is_not_acknowledged_and_says_why(troubled: Troubled) -> None:
    store, key = troubled.real.store, "digits/full-upload/1.safetensors"
    with troubled.full(DRIVE), pytest.raises(Unavailable, match="its disk is full, no space left on it"):
        store.put(keys.MODELS, key, tiny(720))
    assert store.head(keys.MODELS, key) is None

    def acknowledged() -> bool:
        try:
            return store.put(keys.MODELS, key, tiny(720))
        except Unavailable:  # MinIO looks at its free space from time to time
            return False

    eventually(acknowledged)
