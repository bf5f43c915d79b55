"""What the user configured: targets, by file and by environment, each value with its origin.

code  >  command line  >  MODELSERVE_* environment  >  modelserve.toml  >  default
"""

from modelserve.config.settings import Layer, Setting, Settings
from modelserve.config.targets import DEFAULT_TARGET, Config, Target, load_config

__all__ = ["DEFAULT_TARGET", "Config", "Layer", "Setting", "Settings", "Target", "load_config"]
