"""The code of a batch job: the script that the service's driver runs, and modelserve as it is installed here."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files

from modelserve.image.product import product_entries
from modelserve.image.wheels import SITE
from modelserve_azureml.batch_bodies import SCRIPT
from modelserve_azureml.batch_script import PRODUCT

_NO_TIME = (1980, 1, 1, 0, 0, 0)


def code_files() -> Iterator[tuple[str, bytes]]:
    """The files by their names."""
    yield SCRIPT, (files("modelserve_azureml") / SCRIPT).read_bytes()
    yield PRODUCT, _product()


@lru_cache(maxsize=1)
def _product() -> bytes:
    """One archive, since some hundred small files take a minute to send."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in product_entries():
            name = zipfile.ZipInfo(entry.path.removeprefix(f"{SITE}/"), _NO_TIME)
            name.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(name, entry.read())
    return content.getvalue()
