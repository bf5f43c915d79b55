"""Amazon SageMaker on this machine: boto3 and the backend unmodified, over 127.0.0.1, with the real runtime behind.

    boto3, awscli ──► standin ──► control      SageMaker's own state, checked against AWS's service model
                        │     ──► transforms   batch jobs: lines of S3 ──► containers ──► lines of S3
                        │     ──► autoscaling
                        │     ──► door         InvokeEndpoint ──► containers: the real runtime, by SageMaker's contract
                        └─────► moto           S3, STS, IAM, ECR, CloudWatch, Logs

`python -m modelserve_sagemaker.rehearsal` runs one until it is told to end.
"""

from modelserve_sagemaker.rehearsal.opened import SageMakerRehearsal, open_rehearsal

__all__ = ["SageMakerRehearsal", "open_rehearsal"]
