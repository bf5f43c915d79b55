"""The model as its user sees it: it answers, wherever it runs."""

from modelserve.deployment.deployment import Deployment, ServableSource
from modelserve.deployment.target import OpenTarget, attach, attach_at, implied_target, open_target

__all__ = ["Deployment", "OpenTarget", "ServableSource", "attach", "attach_at", "implied_target", "open_target"]
