"""Files of Keras and TensorFlow: .keras, .h5, SavedModel folders and TFLite.

Python code in a .keras or .h5 file is refused. A SavedModel is a program of TensorFlow's own operators, which can read
and write files when it is called: it is to be trusted as a program is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from modelserve.errors import UnsupportedSourceError


class SavedModel:
    """The serving signature of a SavedModel. Its variables live as long as the object that was loaded."""

    __module__ = "tensorflow"

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded
        signatures = loaded.signatures
        found = signatures.get("serving_default") or next(iter(signatures.values()), None)
        if found is None:
            raise UnsupportedSourceError(
                "The SavedModel has no serving signature. Save it with model.export(...), or give the live model."
            )
        self.function = found


def open_model(path: Path) -> Any:
    """What a file holds; a .keras file with code of its own is refused by Keras.

    Raises:
        UnsupportedSourceError: it cannot be read.
    """
    if path.is_dir():
        return SavedModel(tf.saved_model.load(str(path)))
    suffix = path.suffix.lower()
    if suffix == ".tflite":
        return path.read_bytes()
    if suffix not in {".keras", ".h5"}:
        raise UnsupportedSourceError(f"{str(path)!r} cannot be read. Give a .keras file or the live model.")
    try:
        return tf.keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError) as error:
        raise UnsupportedSourceError(f"{str(path)!r} cannot be read by Keras: {error}") from error
