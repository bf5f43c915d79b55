"""Vertex AI on this machine, for tests and for `modelserve rehearse`: the unmodified backend and SDK talk to it."""

from modelserve_vertex.rehearsal.rehearsal import VertexRehearsal

__all__ = ["VertexRehearsal"]
