"""Models in worker processes of this machine: no server, no container, no account."""

from modelserve_local.backend import LocalBackend

__all__ = ["LocalBackend"]
