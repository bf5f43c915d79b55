"""`python -m modelserve_sagemaker.rehearsal`: a stand-in for AWS that runs until it is told to end.

It prints the environment by which boto3, awscli and modelserve reach it, and an account in which a target finds a
role, a bucket and the runtime's image.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from modelserve_sagemaker.options import SageMakerOptions
from modelserve_sagemaker.rehearsal.door import ACCESS_KEY, SECRET_KEY
from modelserve_sagemaker.rehearsal.opened import DEFAULT_REGION, DEFAULT_ROLE, open_rehearsal


def main() -> int:
    """Run until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser("python -m modelserve_sagemaker.rehearsal", description=__doc__)
    parser.add_argument("--region", default=DEFAULT_REGION, help="The region that it is.")
    parser.add_argument("--role", default=DEFAULT_ROLE, help="An execution role that exists there.")
    given = parser.parse_args()
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ending.set())
    with open_rehearsal(SageMakerOptions.model_validate({"region": given.region, "role_arn": given.role})) as rehearsal:
        environment = {
            "AWS_ENDPOINT_URL": rehearsal.standin.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": given.region,
            "SAGEMAKER_ROLE": given.role,
        }
        sys.stdout.write("".join(f"export {name}={value}\n" for name, value in environment.items()))
        sys.stdout.flush()
        ending.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
