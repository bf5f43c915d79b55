"""What Vertex AI would refuse, found without asking it.

The stand-in checks every request, the backend its own before it spends money.
"""

from modelserve_vertex.validation.check import Violation, check, require_kept

__all__ = ["Violation", "check", "require_kept"]
