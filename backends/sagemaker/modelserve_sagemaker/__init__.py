"""Amazon SageMaker: real-time, serverless and asynchronous endpoints of the runtime's own image."""

from modelserve_sagemaker.backend import SageMakerBackend

__all__ = ["SageMakerBackend"]
