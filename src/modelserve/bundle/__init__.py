"""The portable model on disk."""

from modelserve.bundle.live import LiveCallable
from modelserve.bundle.manifest import FileEntry, Manifest, Origin, Step
from modelserve.bundle.store import Bundle, bundles_home, write

__all__ = ["Bundle", "FileEntry", "LiveCallable", "Manifest", "Origin", "Step", "bundles_home", "write"]
