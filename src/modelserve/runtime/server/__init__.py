"""The workers behind HTTP: one process that fronts them, and that every client and every cloud already knows."""

from modelserve.errors import MissingExtraError

try:
    from modelserve.runtime.server.server import Server
    from modelserve.runtime.server.settings import ServerSettings, read_settings
except ModuleNotFoundError as error:
    if error.name not in {"httptools", "msgspec", "orjson", "prometheus_client"}:
        raise
    raise MissingExtraError(
        f'Serving over HTTP needs {error.name!r}. Install it with: pip install "modelserve[server]"'
    ) from error

__all__ = ["Server", "ServerSettings", "read_settings"]
