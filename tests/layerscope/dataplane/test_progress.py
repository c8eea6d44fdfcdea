"""Up to where a partition can be committed."""

from __future__ import annotations

from layerscope.dataplane.progress import Progress


def test_progress_commits_the_contiguous_prefix_only() -> None:
    progress = Progress()
    for offset in (3, 4, 7, 8):  # with a gap, as a log may have
        progress.receive(offset)
    assert progress.settle(4) is None
    assert progress.settle(8) is None
    assert progress.settle(3) == 5
    assert progress.open == 2
    assert progress.settle(7) == 9
    assert progress.open == 0
