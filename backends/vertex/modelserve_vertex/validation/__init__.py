"""What Vertex AI would refuse, found without asking it: by the stand-in of every request, by the backend before it spends money."""

from modelserve_vertex.validation.check import Violation, check

__all__ = ["Violation", "check"]
