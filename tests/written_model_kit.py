"""A version that is a module of Python, which somebody wrote, in the project's cache."""

from __future__ import annotations

from serving_kit import FEATURES

from homeostat.records import Feature, ModelSpec, Task, VersionRef, to_json
from homeostat.registry.cache import SPEC_FILE, digest_of, entry_path, hash_files, model_folder
from homeostat.settings import Settings

MLMODEL = "flavors:\n  python_function:\n    loader_module: written\n    code: code\n"


def add_written(settings: Settings, module: str, version: str = "1") -> VersionRef:
    """`module` has a function _load_pyfunc, as MLflow asks for."""
    name = settings.model.name
    entry = entry_path(settings.cache_path, name, version)
    folder = model_folder(entry)
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "written.py").write_text(module)
    (folder / "MLmodel").write_text(MLMODEL)
    spec = ModelSpec(
        model=name,
        version=version,
        runtime="pyfunc",
        task=Task.CLASSIFICATION,
        features=tuple(Feature(name=feature) for feature in FEATURES),
        tensor_shape=(len(FEATURES),),
        files=hash_files(folder),
    )
    (entry / SPEC_FILE).write_bytes(to_json(spec))
    return VersionRef(version=version, digest=digest_of(spec))
