"""A Delta table's own log: how long it remembers, and that opening the table stays quick."""

from __future__ import annotations

import logging
from datetime import timedelta

from deltalake.exceptions import CommitFailedError

from homeostat.journal.tables import TableRef, open_table, reaching

logger = logging.getLogger(__name__)

LOG_KEPT = timedelta(days=1)  # nobody travels in time; a writer or reader is done within minutes
TOMBSTONES_KEPT = timedelta(days=2)  # longer than replaced files stay, or a vacuum misses them


def settle(table: TableRef, *, keep_deleted: timedelta) -> bool:
    """Have the table's properties as we want them; whether anything had to be changed."""
    handle = open_table(table)
    if handle is None:
        return False
    wanted = {
        "delta.dataSkippingStatsColumns": ",".join(table.searched),
        "delta.logRetentionDuration": _interval(LOG_KEPT),
        "delta.deletedFileRetentionDuration": _interval(keep_deleted + TOMBSTONES_KEPT),
    }
    with reaching(table):
        had = handle.metadata().configuration
        if all(had.get(name) == value for name, value in wanted.items()):
            return False
        try:
            handle.alter.set_table_properties(wanted)
        except CommitFailedError:
            return False  # next time: nothing depends on it
    return True


def tidy_log(table: TableRef) -> None:
    """Sum up the log in a checkpoint and drop entries that are a day old. Writers' versions are
    part of the checkpoint."""
    handle = open_table(table)
    if handle is None:
        return
    with reaching(table):
        handle.create_checkpoint()
        handle.cleanup_metadata()


def _interval(duration: timedelta) -> str:
    return f"interval {int(duration.total_seconds())} seconds"
