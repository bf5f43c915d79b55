"""Managed online endpoints of Azure Machine Learning as a backend."""

from modelserve_azureml.backend import AzureMLBackend

__all__ = ["AzureMLBackend"]
