"""Whose model is this? Found by the root module of its class and bases, importing nothing but the one converter."""

from __future__ import annotations

import zipfile
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
    "sklearn": "sklearn",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
}

_PICKLES = {".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle"}


def find_converter(source: Any) -> Converter:
    """The converter that knows `source`.

    Raises:
        UnsupportedSourceError: none does.
        MissingExtraError: the one that does needs packages that are not installed.
    """
    offered = plugins.names(plugins.CONVERTERS)
    for name in _names(source):
        if name not in offered:
            continue
        converter = _load(name)
        if converter.accepts(source):
            return converter
    raise UnsupportedSourceError(
        f"No converter knows {type(source).__module__}.{type(source).__qualname__}; known are models of "
        f"{', '.join(sorted(offered)) or 'nothing'}. Give a trained model, an .onnx file or a bundle."
    )


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
    if suffix in {".keras", ".h5"} or (path / "saved_model.pb").is_file():
        return _load("keras").open_file(path)  # type: ignore[attr-defined]  # as above
    if suffix == ".skops":
        return _load("sklearn").open_file(path)  # type: ignore[attr-defined]  # as above
    raise UnsupportedSourceError(
        f"{str(path)!r} is of no known kind; known are .onnx, .pt2, TorchScript .pt, .keras, SavedModel "
        "folders, .skops and bundles."
    )


def _names(source: Any) -> list[str]:
    if isinstance(source, Path):
        return ["onnx"]
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
