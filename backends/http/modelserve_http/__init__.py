"""Any server of the Open Inference Protocol as a backend: our own, Triton, KServe, MLServer."""

from modelserve_http.backend import HttpBackend

__all__ = ["HttpBackend"]
