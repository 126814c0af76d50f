"""Rollout records: the newest epoch is who serves; and what is known of each version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import msgspec
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from homeostat.errors import Conflict
from homeostat.records import Rollout, VersionRef, from_json, to_json
from homeostat.state.schema import references, rollouts, versions


@dataclass(frozen=True, kw_only=True)
class KnownVersion:
    ref: VersionRef
    run_id: str | None
    baseline_error: float
    baseline_rows: int


@dataclass(frozen=True, kw_only=True)
class Reference:
    kind: str  # training, production
    path: str  # relative to the home folder
    created_at: datetime


def current(tx: Connection, model: str) -> Rollout | None:
    text = tx.execute(
        select(rollouts.c.record)
        .where(rollouts.c.model == model)
        .order_by(rollouts.c.epoch.desc())
        .limit(1)
    ).scalar()
    return from_json(text, Rollout) if text else None


def newest(tx: Connection, model: str, limit: int = 20) -> list[Rollout]:
    """Newest first."""
    rows = tx.execute(
        select(rollouts.c.record)
        .where(rollouts.c.model == model)
        .order_by(rollouts.c.epoch.desc())
        .limit(limit)
    )
    return [from_json(row.record, Rollout) for row in rows]


def newest_champions(tx: Connection, model: str, limit: int = 20) -> list[Rollout]:
    """Newest first: the records by which a version came to serve, without those that only put one
    on trial."""
    rows = tx.execute(
        select(rollouts.c.record).where(rollouts.c.model == model).order_by(rollouts.c.epoch.desc())
    )
    found = (from_json(row.record, Rollout) for row in rows)
    return list(islice((each for each in found if each.champion_since is None), limit))


def write(tx: Connection, rollout: Rollout) -> None:
    """Add the next epoch. Raises Conflict when it is taken, or its run was promoted before."""
    try:
        tx.execute(
            insert(rollouts).values(
                model=rollout.model,
                epoch=rollout.epoch,
                run_id=rollout.run_id,
                created_at=rollout.created_at,
                record=to_json(rollout).decode(),
                mirrored=False,
            )
        )
    except IntegrityError:
        raise Conflict(
            f"epoch {rollout.epoch} of {rollout.model} is taken, or run {rollout.run_id} "
            "was promoted already"
        ) from None


def last_mirrored(tx: Connection, model: str) -> Rollout | None:
    """The newest record that MLflow's aliases were brought in line with."""
    text = tx.execute(
        select(rollouts.c.record)
        .where(rollouts.c.model == model, rollouts.c.mirrored.is_(True))
        .order_by(rollouts.c.epoch.desc())
        .limit(1)
    ).scalar()
    return from_json(text, Rollout) if text else None


def mark_mirrored(tx: Connection, model: str, epoch: int) -> None:
    tx.execute(
        rollouts.update()
        .where(rollouts.c.model == model, rollouts.c.epoch == epoch)
        .values(mirrored=True)
    )


def forget_references(tx: Connection, model: str, folder: str) -> None:
    """Of a folder (relative to home) that is about to be removed."""
    under = references.c.path.startswith(f"{folder}/", autoescape=True)
    tx.execute(references.delete().where(references.c.model == model, under))


def add_version(
    tx: Connection, model: str, ref: VersionRef, run_id: str | None, now: datetime
) -> None:
    """Remember a version's digest; the first one seen stays (MLflow's tags can be changed)."""
    if known(tx, model, ref.version) is None:
        tx.execute(
            insert(versions).values(
                model=model, version=ref.version, digest=ref.digest, run_id=run_id, created_at=now
            )
        )


def set_baseline(tx: Connection, model: str, version: str, error: float, rows: int) -> None:
    tx.execute(
        versions.update()
        .where(versions.c.model == model, versions.c.version == version)
        .values(baseline_error=msgspec.json.encode([error, rows]).decode())
    )


def known(tx: Connection, model: str, version: str) -> KnownVersion | None:
    row = tx.execute(
        select(versions).where(versions.c.model == model, versions.c.version == version)
    ).one_or_none()
    if row is None:
        return None
    error, rows = msgspec.json.decode(row.baseline_error or "[0.0, 0]", type=tuple[float, int])
    return KnownVersion(
        ref=VersionRef(version=row.version, digest=row.digest),
        run_id=row.run_id,
        baseline_error=error,
        baseline_rows=rows,
    )


def set_reference(tx: Connection, model: str, version: str, reference: Reference) -> None:
    same = (
        references.c.model == model,
        references.c.version == version,
        references.c.kind == reference.kind,
    )
    tx.execute(references.delete().where(*same))
    tx.execute(
        insert(references).values(
            model=model,
            version=version,
            kind=reference.kind,
            path=reference.path,
            created_at=reference.created_at,
        )
    )


def references_of(tx: Connection, model: str, version: str) -> dict[str, Reference]:
    """By kind."""
    rows = tx.execute(
        select(references).where(references.c.model == model, references.c.version == version)
    )
    return {
        row.kind: Reference(kind=row.kind, path=row.path, created_at=row.created_at) for row in rows
    }
