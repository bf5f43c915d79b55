"""The model as its user sees it: it answers, wherever it runs."""

from modelserve.deployment.deployment import Deployment, ServableSource
from modelserve.deployment.place import Place, attach, open_place

__all__ = ["Deployment", "Place", "ServableSource", "attach", "open_place"]
