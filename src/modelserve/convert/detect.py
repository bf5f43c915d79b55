"""Whose model is this? Found by the root module of its class and bases, importing nothing but the one converter."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelserve import plugins
from modelserve.convert.contract import Converter
from modelserve.errors import MissingExtraError, UnsupportedSourceError

#: The root module of a class -> the converter's name. More come by entry points of the same names.
ROOTS = {
    "onnx": "onnx",
    "torch": "torch",
    "transformers": "torch",
    "keras": "keras",
    "tensorflow": "keras",
    "tf_keras": "keras",
    "flax": "jax",
    "jax": "jax",
    "jaxlib": "jax",
    "sklearn": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
}

_PICKLES = {".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle"}


def find_converter(source: Any, example: Any = None) -> Converter:
    """The converter that knows `source`.

    A plain function tells nothing of itself: its framework is the one whose arrays it answers the example with.

    Raises:
        UnsupportedSourceError: none does.
        MissingExtraError: the one that does needs packages that are not installed.
    """
    offered = plugins.names(plugins.CONVERTERS)
    names = _names(source)
    if not set(offered) & set(names) and _is_plain(source) and example is not None:
        names += _names(_answer(source, example))
    for name in names:
        if name not in offered:
            continue
        converter = _load(name)
        if converter.accepts(source):
            return converter
    raise UnsupportedSourceError(_unknown(source, offered))


def open_file(path: Path) -> Any:
    """The source that a model file holds.

    Raises:
        UnsupportedSourceError: it is a pickle, or of no known kind.
    """
    if not path.exists():
        raise UnsupportedSourceError(f"There is no file {str(path)!r}.")
    if path.suffix.lower() in _PICKLES or _is_pickle(path):
        raise UnsupportedSourceError(
            f"{str(path)!r} is a pickle, which runs whatever code is in it when it is read. "
            "Load it yourself in a program that trusts it, and give the object: Model(joblib.load(...))."
        )
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return path
    if suffix in {".pt", ".pt2", ".pth", ".ts"}:
        return _load("torch").open_file(path)  # type: ignore[attr-defined]  # a converter of files has this verb
    if suffix in {".keras", ".h5", ".tflite"} or (path / "saved_model.pb").is_file():
        return _load("keras").open_file(path)  # type: ignore[attr-defined]  # as above
    if suffix == ".skops":
        return _load("sklearn").open_file(path)  # type: ignore[attr-defined]  # as above
    raise UnsupportedSourceError(
        f"{str(path)!r} is of no known kind; known are .onnx, .pt2, TorchScript .pt, .keras, .h5, .tflite, "
        "SavedModel folders, .skops and bundles."
    )


def _is_plain(source: Any) -> bool:
    return callable(source) and not isinstance(source, type) and not hasattr(source, "predict")


def _answer(source: Any, example: Any) -> Any:
    """What a function answers the example with; its first part, if it answers with several."""
    if isinstance(example, Mapping):
        return None
    try:
        found = source(*(example if isinstance(example, tuple) else (example,)))
    except Exception:  # noqa: BLE001  # whoever serves it asks again, and tells what it raised
        return None
    while isinstance(found, Mapping | tuple | list) and found:
        found = next(iter(found.values() if isinstance(found, Mapping) else found))
    return found


def _unknown(source: Any, offered: Sequence[str]) -> str:
    kind = f"{type(source).__module__}.{type(source).__qualname__}"
    if isinstance(source, type):
        return f"The class {source.__qualname__} was given, not a model. Give an instance of it: Model(model, ...)."
    if callable(source):
        name = getattr(source, "__qualname__", kind)
        return f"{name!r} is a plain Python callable, which has no portable form: local workers run it as it is."
    return (
        f"No converter knows {kind}; known are models of {', '.join(sorted(offered)) or 'nothing'}. Give a trained "
        "model, a callable, an .onnx file or a bundle."
    )


def _names(source: Any) -> list[str]:
    if isinstance(source, Path):
        return ["onnx"]
    if isinstance(source, bytes):
        return ["keras"] if source[4:8] == b"TFL3" else []
    found = []
    for kind in type(source).__mro__:
        name = ROOTS.get(kind.__module__.partition(".")[0]) or kind.__module__.partition(".")[0]
        if name not in found and name != "builtins":
            found.append(name)
    return found


def _load(name: str) -> Converter:
    entry = plugins.find(plugins.CONVERTERS, name)
    if entry is None:
        raise UnsupportedSourceError(f"The converter {name!r} is not installed. Reinstall modelserve.")
    try:
        converter: Converter = plugins.load(entry)
    except MissingExtraError as error:
        raise MissingExtraError(
            f"A model of {name} needs a package that is not installed ({error.__cause__}). "
            f'Install it with: pip install "modelserve[{name}]"'
        ) from error
    return converter


def _is_pickle(path: Path) -> bool:
    """Whether a file is a bare pickle, or torch's zip around one that is no TorchScript program."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(2)
    if head[:1] == b"\x80" and head[1:] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        return True
    if path.suffix.lower() not in {".pt", ".pth", ".pt2", ".ts"} or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    scripted = any("/code/" in name or name.endswith("constants.pkl") for name in names)
    exported = any(name.endswith("/archive_format") for name in names)
    return not scripted and not exported
