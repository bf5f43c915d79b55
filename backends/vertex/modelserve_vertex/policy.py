"""The least permissions that deploying needs, by who needs them.

A custom role takes `caller` as it stands: gcloud iam roles create modelserve --project=... --permissions=...
"""

from __future__ import annotations

from typing import Any

from modelserve_vertex.options import VertexOptions

#: Of whoever runs modelserve.
CALLER = (
    "aiplatform.batchPredictionJobs.cancel",
    "aiplatform.batchPredictionJobs.create",
    "aiplatform.batchPredictionJobs.delete",
    "aiplatform.batchPredictionJobs.get",
    "aiplatform.batchPredictionJobs.list",
    "aiplatform.endpoints.create",
    "aiplatform.endpoints.delete",
    "aiplatform.endpoints.deploy",
    "aiplatform.endpoints.get",
    "aiplatform.endpoints.list",
    "aiplatform.endpoints.predict",
    "aiplatform.endpoints.undeploy",
    "aiplatform.endpoints.update",
    "aiplatform.models.delete",
    "aiplatform.models.get",
    "aiplatform.models.list",
    "aiplatform.models.upload",
    "aiplatform.operations.list",
    "logging.logEntries.list",
    "storage.buckets.get",
    "storage.objects.create",
    "storage.objects.delete",
    "storage.objects.get",
    "storage.objects.list",
)
#: Only where an update is tried with a share of the traffic first.
COUNTING = ("monitoring.timeSeries.list",)
#: Only where the runtime's image is pushed by the same caller.
PUSHING = ("artifactregistry.repositories.downloadArtifacts", "artifactregistry.repositories.uploadArtifacts")
_AGENT = "service-PROJECT_NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com"


def of_caller(options: VertexOptions) -> list[str]:
    """What whoever runs modelserve needs with these options."""
    return [*CALLER, *(COUNTING if options.canary_percent else ())]


def permissions(options: VertexOptions) -> dict[str, Any]:
    """Roles and permissions, as Google's IAM has them."""
    found: dict[str, Any] = {
        "caller": {
            "title": "modelserve: deploy to Vertex AI",
            "includedPermissions": [*of_caller(options), *PUSHING],
            "stage": "GA",
        },
        "service_agent": {
            "member": f"serviceAccount:{_AGENT}",
            "roles": ["roles/aiplatform.serviceAgent"],
            "note": "Granted by Google with the API. It pulls the image, copies the bundle, and reads and writes the "
            "files of batch jobs; an image or a bucket of another project needs roles/artifactregistry.reader and "
            "roles/storage.objectUser there.",
        },
        "predicting": {"includedPermissions": ["aiplatform.endpoints.predict"]},
    }
    if options.service_account:
        found["caller"]["includedPermissions"].append("iam.serviceAccounts.actAs")
        found["service_account"] = {
            "member": f"serviceAccount:{options.service_account}",
            "roles": [],
            "note": "It needs nothing to read the bundle: Vertex AI lets it read its own copy.",
        }
    if options.kms_key:
        found["key"] = {
            "resource": options.kms_key,
            "member": f"serviceAccount:{_AGENT}",
            "roles": ["roles/cloudkms.cryptoKeyEncrypterDecrypter"],
        }
    if options.request_log_table:
        found["request_log"] = {
            "resource": options.request_log_table,
            "member": f"serviceAccount:{_AGENT}",
            "roles": ["roles/bigquery.dataEditor"],
        }
    return found
