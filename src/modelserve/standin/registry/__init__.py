"""A registry of container images on this machine, strict to the OCI distribution specification."""

from modelserve.standin.registry.access import Door
from modelserve.standin.registry.images import put_image, put_this_python
from modelserve.standin.registry.server import RegistryStandIn

__all__ = ["Door", "RegistryStandIn", "put_image", "put_this_python"]
