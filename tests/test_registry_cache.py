"""The local cache tells a whole entry from a harmed one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.errors import IntegrityError, NotReady
from homeostat.records import Feature, ModelSpec, Task, from_json, to_json
from homeostat.registry.cache import (
    SPEC_FILE,
    digest_of,
    entry_path,
    hash_files,
    model_folder,
    read_spec,
    verify,
)

SPEC = ModelSpec(
    model="digits",
    version="3",
    runtime="pyfunc",
    task=Task.CLASSIFICATION,
    features=(Feature(name="a"), Feature(name="b")),
)


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    folder = entry_path(tmp_path, "digits", "3")
    (model_folder(folder) / "data").mkdir(parents=True)
    (model_folder(folder) / "MLmodel").write_text("flavors: {}\n")
    (model_folder(folder) / "data" / "weights").write_bytes(bytes(range(256)))
    spec = replace(SPEC, files=hash_files(model_folder(folder)))
    (folder / SPEC_FILE).write_bytes(to_json(spec))
    return folder


def test_a_whole_entry_verifies(entry: Path) -> None:
    """An untouched entry gives its spec, with a hash for every file."""
    spec = verify(entry, digest_of(read_spec(entry)))
    assert set(spec.files) == {"MLmodel", "data/weights"}


@pytest.mark.parametrize("harm", ["changed", "missing", "added", "spec"])
def test_a_harmed_entry_is_not_used(entry: Path, harm: str) -> None:
    """Whatever was done to an entry's files, verify refuses it and says what to do."""
    digest = digest_of(read_spec(entry))
    weights = model_folder(entry) / "data" / "weights"
    if harm == "changed":
        weights.write_bytes(bytes(reversed(range(256))))
    elif harm == "missing":
        weights.unlink()
    elif harm == "added":
        (model_folder(entry) / "code.py").write_text("raise SystemExit")
    else:
        weights.write_bytes(b"others")
        spec = replace(read_spec(entry), files=hash_files(model_folder(entry)))
        (entry / SPEC_FILE).write_bytes(to_json(spec))
    with pytest.raises(IntegrityError, match="fetch the version again"):
        verify(entry, digest)


def test_an_absent_entry_says_how_to_get_it(tmp_path: Path) -> None:
    """A version that was never fetched is not ready, rather than a crash on a missing file."""
    with pytest.raises(NotReady, match=r"homeostat\.registry fetch"):
        read_spec(entry_path(tmp_path, "digits", "9"))


@pytest.mark.parametrize("version", ["", ".", "..", "../x", "a/b", "a\\b"])
def test_a_version_cannot_leave_the_cache(tmp_path: Path, version: str) -> None:
    """A name that is a path is refused."""
    with pytest.raises(ValueError, match="cannot name a folder"):
        entry_path(tmp_path, "digits", version)


names = st.text(min_size=1, max_size=8)


@given(files=st.dictionaries(names, names), classes=st.lists(names))
def test_the_digest_depends_on_content_not_on_order(
    files: dict[str, str], classes: list[str]
) -> None:
    """Neither JSON, nor the files' order, nor what is said of the features changes the digest."""
    spec = replace(SPEC, files=files, classes=tuple(classes))
    turned = replace(spec, files=dict(reversed(files.items())))
    assert digest_of(from_json(to_json(spec), ModelSpec)) == digest_of(turned) == digest_of(spec)
    described = replace(spec, features=(Feature(name="c"),), task=Task.REGRESSION)
    assert digest_of(described) == digest_of(spec)
    assert digest_of(replace(spec, version="4")) != digest_of(spec)
    assert digest_of(replace(spec, model="other")) != digest_of(spec)
    assert digest_of(replace(spec, files={**files, "a longer name": "hash"})) != digest_of(spec)


def test_neither_mlflow_nor_pandas_comes_with_the_cache_or_the_runtime() -> None:
    """A server that imports the cache and the loader carries none of the slow packages."""
    program = (
        "import sys; import homeostat.registry.cache, homeostat.model_runtime.loading, "
        "homeostat.model_runtime.torch_program, homeostat.model_runtime.pyfunc; "
        "print(sorted({'mlflow', 'pandas', 'sqlalchemy', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
