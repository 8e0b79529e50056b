"""Sends what a run could not send while it was at work."""

from __future__ import annotations

from pathlib import Path

from clsgen_dist.errors import ConfigError, TrackingError
from clsgen_dist.tracking.address import check_address
from clsgen_dist.tracking.courier import Courier
from clsgen_dist.tracking.journal import Journal, Record, journal_path, record_path
from clsgen_dist.tracking.service import reason_of

_KINDS = ("metrics", "params", "tags", "datasets", "files")


def sync_tracking(folder: Path, uri: str | None) -> str:
    """Brings the journal of a run folder to MLflow. Run again, it sends only what is missing there.

    Args:
        folder: of a run that nobody is at work in.
        uri: address of MLflow; None for the one that the run had.

    Returns:
        What was sent, in a line or two.

    Raises:
        ConfigError: there is no journal, or the address is none of MLflow's.
        TrackingError: MLflow is away, or a file did not get through; the rest is kept.
    """
    record = Record.load(record_path(folder))
    address = uri or (record.uri if record else None)
    if address is None:
        raise ConfigError(f"{record_path(folder)}: says no address of MLflow; give --tracking.uri http://HOST:5000")
    check_address(address)
    if record is None or record.uri != address:
        record = Record(address)
    courier = Courier(_journal(folder), folder, record, record_path(folder))
    try:
        courier.advance()
        courier.send_left()
    except Exception as error:  # noqa: BLE001 - servers, databases and stores for files have errors of their own
        raise TrackingError(
            f"tracking.uri {address}: {reason_of(error)}; {courier.num_waiting} entries are kept in {folder}, "
            "start the server, or mend the address, and run this again"
        ) from None
    sent = courier.sent
    told = f"sent: {', '.join(f'{sent[kind]} {kind}' for kind in _KINDS)} (run {record.run_id} at {address})"
    if sent["refused"] or sent["missing"]:
        told += f"\nnot sent: {sent['refused']} refused by MLflow, {sent['missing']} paths that are gone"
    if record.left:
        raise TrackingError(f"{told}\n{len(record.left)} paths did not get through to MLflow's store for files")
    return told


def _journal(folder: Path) -> Journal:
    try:
        journal = Journal(journal_path(folder))
    except OSError as error:
        raise ConfigError(
            f"{journal_path(folder)}: no journal here ({error.strerror}); give --run OUTPUT_DIR/RUN_NAME"
        ) from None
    if not journal.header:
        raise ConfigError(f"{journal_path(folder)}: does not say which run it is of; expected a line of kind run")
    return journal
