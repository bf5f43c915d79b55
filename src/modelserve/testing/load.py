"""Callers that keep asking while something else happens."""

from modelserve.standin.load import Load

__all__ = ["Load"]
