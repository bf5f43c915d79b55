"""What each cloud expects of a container: where it listens, what it is asked, where the model lies."""

from modelserve.runtime.server.contracts.contract import Contract
from modelserve.runtime.server.contracts.detect import detect

__all__ = ["Contract", "detect"]
