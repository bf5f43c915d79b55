"""Models on Google Vertex AI: endpoints with autoscaled replicas of our own runtime."""

from modelserve_vertex.backend import VertexBackend

__all__ = ["VertexBackend"]
