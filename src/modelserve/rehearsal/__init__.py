"""The whole life of a deployment on a stand-in of its place: what passes, what the real one would refuse.

rehearse(backend, bundle) ──► Report ──► terminal, JSON, one HTML page
"""

from modelserve.rehearsal.page import page
from modelserve.rehearsal.report import Report, Stage
from modelserve.rehearsal.sample import sample
from modelserve.rehearsal.script import rehearse

__all__ = ["Report", "Stage", "page", "rehearse", "sample"]
