"""Data sets through Vertex AI's batch prediction: jobs of their own on the deployment's registered model.

    batches.py ── files.py, service.py     a job is begun, found again, ended
    job.py ── answers.py                   how it is, and what it answered

The core sees a `Job`, and lines by part.
"""

from modelserve_vertex.batch.batches import Batches
from modelserve_vertex.batch.service import BatchPredictions

__all__ = ["BatchPredictions", "Batches"]
