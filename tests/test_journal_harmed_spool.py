"""A disk that is full, and files of the spool that are damaged, cost only what they hold."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from crash_kit import child
from journal_kit import open_writer, stored, tensor_rows, until

from homeostat.errors import JournalUnavailable
from homeostat.journal.encoding import constants

FULL_DISK = """
import resource, signal, sys
from datetime import timedelta
from pathlib import Path
from homeostat.errors import JournalUnavailable
from journal_kit import open_writer, tensor_rows
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = open_writer(Path(sys.argv[1]))
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, most))
count = refused = 0
while refused < 3:
    count += 1
    try:
        writer.append(tensor_rows([f"row-{count}"]))
        print(f"row-{count}")
    except JournalUnavailable as problem:
        assert "free space" in str(problem)
        refused += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
writer.append(tensor_rows(["after"]))
print("after")
writer.close()
"""


def test_full_disk_refuses_rows_and_harms_no_others(tmp_path: Path) -> None:
    """A row that found no room is refused; those before and after it are stored once."""
    process = child(FULL_DISK, tmp_path)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert stored(tmp_path) == dict.fromkeys(out.decode().split(), 1)


CUT_FAILS = """
import os, resource, signal, sys
from pathlib import Path
from homeostat.errors import JournalUnavailable
from journal_kit import open_writer, tensor_rows
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def refused(handle, size):
    raise OSError(5, "Input/output error")

os.ftruncate = refused
writer = open_writer(Path(sys.argv[1]))
writer.append(tensor_rows(["before"]))
size = next(Path(sys.argv[1]).glob("spool/digits/server-1/*.arrows")).stat().st_size
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, most))
try:
    writer.append(tensor_rows(["refused"]))
except JournalUnavailable:
    pass
else:
    raise SystemExit("it was taken")
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
writer.append(tensor_rows(["after"]))
writer.close()
"""


def test_file_that_cannot_be_cut_takes_no_more_rows(tmp_path: Path) -> None:
    """Half a message that stays in a file hides no row that comes after it."""
    process = child(CUT_FAILS, tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert stored(tmp_path) == {"before": 1, "after": 1}


def test_spool_drains_where_no_new_file_can_be_made(tmp_path: Path) -> None:
    """As on a full disk: what has to be noted before a commit is written in its place."""
    (tmp_path / "journal").write_text("not a folder")
    writer = open_writer(tmp_path, flush_within=timedelta(seconds=0.1))
    writer.append(tensor_rows(["a"]))
    writer.close()
    (tmp_path / "journal").unlink()
    spool = tmp_path / "spool/digits/server-1"
    noted = [file for file in spool.iterdir() if file.suffix != ".arrows"]
    before = {file: (file.stat().st_ino, file.stat().st_size) for file in noted}
    open_writer(tmp_path).close()
    assert stored(tmp_path) == {"a": 1}
    after = [file for file in spool.iterdir() if file.suffix != ".arrows"]
    assert {file: (file.stat().st_ino, file.stat().st_size) for file in after} == before


@pytest.mark.parametrize("at", ["head", "middle"])
def test_file_of_a_dead_process_that_is_damaged_is_kept(tmp_path: Path, at: str) -> None:
    """What a kill cannot have done is not passed over: what can be read is stored, and the file is
    set aside."""
    (tmp_path / "journal").write_text("not a folder")
    writer = open_writer(tmp_path, flush_within=timedelta(seconds=0.1))
    spool = tmp_path / "spool/digits/server-1"
    sizes = []
    for name in "abc":
        writer.append(tensor_rows([name]))
        sizes.append(next(spool.glob("*.arrows")).stat().st_size)
    writer.close()
    segment = next(spool.glob("*.arrows"))
    with segment.open("r+b") as file:
        file.seek({"head": 0, "middle": sizes[0]}[at])
        file.write(bytes(8))
    (tmp_path / "journal").unlink()
    again = open_writer(tmp_path)
    again.append(tensor_rows(["after"]))
    again.close()
    assert stored(tmp_path) == ({"after": 1} if at == "head" else {"a": 1, "after": 1})
    assert len(list(spool.glob("rejected/*.arrows"))) == 1
    assert list(spool.glob("*.arrows")) == []
    assert again.level().errors > 0


def test_file_that_somebody_cut_is_set_aside_and_told(tmp_path: Path) -> None:
    """Rows that were acknowledged and are no longer in the spool's file are not passed over."""
    writer = open_writer(tmp_path)
    writer.append(tensor_rows(["a"]))
    writer.flush()
    writer.append(tensor_rows(["b"]))
    writer.append(tensor_rows(["c"]))
    spool = tmp_path / "spool/digits/server-1"
    segment = next(spool.glob("*.arrows"))
    os.truncate(segment, segment.stat().st_size - 10)
    with pytest.raises(JournalUnavailable, match="is damaged"):
        writer.flush()
    assert writer.level().rejected == 2
    writer.close()
    assert stored(tmp_path) == {"a": 1}
    assert len(list(spool.glob("rejected/*.arrows"))) == 1


def test_rows_of_another_version_keep_no_others_waiting(tmp_path: Path) -> None:
    """They are set aside: only that version knows what they mean."""
    writer = open_writer(tmp_path)
    until(lambda: "labels" in writer._committer._met)  # what is sealed by then, it stores unasked
    writer.append(tensor_rows(["a"]))
    writer._spool.seal()
    (file,) = (tmp_path / "spool").rglob("*.arrows")
    stream = pa.ipc.open_stream(file)
    said = json.loads(stream.schema.metadata[constants.METADATA]) | {"more": 1}
    schema = stream.schema.with_metadata({constants.METADATA: json.dumps(said)})
    rows = [pa.record_batch(each.columns, schema=schema) for each in stream]
    with pa.ipc.new_stream(file, schema) as changed:
        changed.write_batch(rows[0])
    writer.append(tensor_rows(["b"]))
    with pytest.raises(JournalUnavailable, match="another version of Homeostat"):
        writer.flush()
    writer.flush()
    assert stored(tmp_path) == {"b": 1}
    assert writer.level().rejected == 1
    writer.close()
