"""Where modelserve keeps what it can make again: `MODELSERVE_HOME`, or the platform's cache folder of the user."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The folder for caches and journals; it need not exist yet."""
    chosen = os.environ.get("MODELSERVE_HOME")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path  # imported late: only needed where no folder was chosen

    return user_cache_path("modelserve")
