"""What Azure Machine Learning documents of managed online endpoints; where no figure is published there is none here.

https://learn.microsoft.com/azure/machine-learning/how-to-manage-quotas (2026-01-27)
"""

from __future__ import annotations

import re

NAME = re.compile(r"[a-zA-Z](-?[a-zA-Z0-9])*")
CLUSTER_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{1,15}")
SHORTEST_NAME = 3
LONGEST_NAME = 32

#: The service's own default is 5 seconds, which few models keep under load.
LONGEST_REQUEST_S = 180
LARGEST_CAPACITY = 50
MOST_DEPLOYMENTS = 20
MOST_TAGS = 50
LONGEST_TAG_NAME = 512
LONGEST_TAG = 256
LARGEST_MIRROR_PERCENT = 50

#: Requests that an instance's door holds: those that run, and as many again that wait; more are answered 429.
ADMITTED_PER_SLOT = 2

#: Part of the quota that the service keeps for upgrades, unless the size is exempt from it.
QUOTA_FACTOR = 1.2
NO_RESERVE = ("Standard_NC24ads_A100_v4", "Standard_NC40ads_H100_v5", "Standard_ND")

#: Longest time for one part of a batch job, of which the service's own default is 30 seconds.
LONGEST_PART_S = 86_400
LARGEST_CLUSTER = 100

#: Above this the service slows an endpoint down.
BANDWIDTH_BYTES_PER_S = 5_000_000

#: Too small for a managed endpoint, says the list of sizes.
TOO_SMALL = ("Standard_DS1_v2", "Standard_DS2_v2", "Standard_F2s_v2")
