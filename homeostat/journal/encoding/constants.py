"""What is the same in all rows of a segment: it stands once in the schema, not in each row.

A server writes a batch of a few rows at a time, and what a column costs in each batch, to write and
to read, is more than what its values do.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from homeostat.errors import HomeostatError
from homeostat.journal.encoding import arrays

METADATA = b"homeostat.constants"


class ForeignRows(HomeostatError):
    """Rows in the spool that say of themselves what this version does not know."""


@dataclass(frozen=True, kw_only=True)
class Constants:
    version: str
    role: str
    cached: bool
    weight: float  # how many rows each stands for
    recorded: str | None = None  # Recording.text()


def metadata(same: Constants) -> dict[bytes, bytes]:
    return {METADATA: json.dumps(asdict(same)).encode()}


def spread(data: Any) -> Any:
    """Rows as they were read from a segment, with the columns that its schema stands for. Raises
    ForeignRows."""
    found = (data.schema.metadata or {}).get(METADATA)
    if found is None:
        return data
    try:
        same, rows = Constants(**json.loads(found)), data.num_rows
    except (TypeError, ValueError) as problem:
        raise ForeignRows(
            f"another version of Homeostat wrote them ({problem}), which can store them"
        ) from problem
    data = data.replace_schema_metadata(None)
    for name, column in (
        ("version", arrays.text(same.version, rows)),
        ("role", arrays.text(same.role, rows)),
        ("cached", arrays.booleans(same.cached, rows)),
        ("weight", arrays.repeated(same.weight, rows, "float64", pa.float64())),
    ):
        data = data.append_column(name, column)
    if same.recorded is not None:
        data = data.append_column("recorded", arrays.text(same.recorded, rows))
    return data
