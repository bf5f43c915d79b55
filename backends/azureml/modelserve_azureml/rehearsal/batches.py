"""Batch endpoints, clusters and jobs: what the resource manager answers of them, and the door that begins jobs.

    PUT cluster, batch endpoint, deployment ──► POST <endpoint>.<region>.inference.ml.azure.com/jobs ──► a job

What a job then does is in `scoring_jobs.py`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from modelserve.standin.faults import Faults
from modelserve.standin.loopback import Answered
from modelserve_azureml.names import PROVIDER, Workspace
from modelserve_azureml.rehearsal.account import CONTAINER, REGION, Account
from modelserve_azureml.rehearsal.blobs import Blobs
from modelserve_azureml.rehearsal.calls import Call, Refusal, said
from modelserve_azureml.rehearsal.resources import OperationFailed, Operations, Resources
from modelserve_azureml.rehearsal.routing import NAME, Route, refuse, route
from modelserve_azureml.rehearsal.scoring_jobs import ScoringJob, Work
from modelserve_azureml.rehearsal.sign_in import SignIn
from modelserve_azureml.validation import Kind, problems, seconds

_ENDED = {"Completed", "Failed", "Canceled"}


class Batches:
    """What a workspace has for batch jobs."""

    def __init__(
        self,
        workspace: Workspace,
        account: Account,
        resources: Resources,
        operations: Operations,
        blobs: Blobs,
        faults: Faults,
        sign_in: SignIn,
    ) -> None:
        self._workspace = workspace
        self._account = account
        self._resources = resources
        self._operations = operations
        self._blobs = blobs
        self._faults = faults
        self._sign_in = sign_in
        self._lock = threading.Lock()
        self._jobs: dict[str, ScoringJob] = {}
        self._asked: dict[str, str] = {}

    def routes(self) -> list[Route]:
        workspace = re.escape(self._workspace.path)
        compute, job = f"{workspace}/computes/{NAME}", f"{workspace}/jobs/{NAME}"
        endpoint = f"{workspace}/batchEndpoints/{NAME}"
        deployment = f"{endpoint}/deployments/{NAME}"
        return [
            route("Computes.Get", "GET", compute, self._get),
            route("Computes.Put", "PUT", compute, self._put_compute),
            route("Computes.Delete", "DELETE", compute, self._delete_compute),
            route("BatchEndpoints.List", "GET", f"{workspace}/batchEndpoints", self._list),
            route("BatchEndpoints.Get", "GET", endpoint, self._get),
            route("BatchEndpoints.Put", "PUT", endpoint, self._put_endpoint),
            route("BatchEndpoints.Delete", "DELETE", endpoint, self._delete),
            route("BatchDeployments.List", "GET", f"{endpoint}/deployments", self._list),
            route("BatchDeployments.Get", "GET", deployment, self._get),
            route("BatchDeployments.Put", "PUT", deployment, self._put_deployment),
            route("Jobs.List", "GET", f"{workspace}/jobs", self._list),
            route("Jobs.Get", "GET", job, self._get),
            route("Jobs.Cancel", "POST", f"{job}/cancel", self._cancel),
            route("Jobs.Delete", "DELETE", job, self._delete_job),
        ]

    def begin(self, call: Call) -> Answered:
        """The door: a job of an endpoint's deployment; the same request twice is one job."""
        self._sign_in.check(call, {"https://ml.azure.com"})
        endpoint = self._resources.need(self._workspace.batch_endpoint(call.host.partition(".")[0]))
        default = (endpoint["properties"].get("defaults") or {}).get("deploymentName", "")
        chosen = call.headers.get("azureml-model-deployment") or default
        deployment = self._resources.need(f"{endpoint['id']}/deployments/{chosen}")
        asked = call.json.get("properties") or {}
        name = asked.get("name") or f"batchjob-{len(self._asked)}"
        path = self._workspace.job(name)
        with self._lock:
            known = self._asked.get(call.headers.get("repeatability-request-id") or path)
            if known is not None:
                return said(self._resources.need(self._workspace.job(known)), 201)
            if self._resources.get(path) is not None:
                raise Refusal(409, "UserError", f"A job with name {name} already exists.")
            work = self._work(deployment["properties"], asked)
            content = self._resources.put(path, _shown(name, asked))
            self._asked[call.headers.get("repeatability-request-id") or path] = name
            self._jobs[name] = ScoringJob(name, work, self._blobs, self._faults, self._noting(path))
        return said(content, 201)

    def names(self) -> list[str]:
        """Jobs that are under way."""
        with self._lock:
            names = list(self._jobs)
        found = [self._resources.get(self._workspace.job(name)) for name in names]
        return [f"job {one['name']}" for one in found if one and one["properties"]["status"] not in _ENDED]

    def close(self) -> None:
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()

    def _work(self, deployment: Mapping[str, Any], asked: Mapping[str, Any]) -> Work:
        retry, code = deployment.get("retrySettings") or {}, deployment["codeConfiguration"]
        model = deployment["model"]["assetId"]
        instances = (deployment.get("resources") or {}).get("instanceCount", 1)
        return Work(
            model=model,
            model_uri=self._resources.need(model)["properties"]["modelUri"],
            code=self._resources.need(code["codeId"])["properties"]["codeUri"],
            script=code["scoringScript"],
            lines=self._folder(asked.get("inputData"), "jobInputType", {"UriFolder"}),
            answers=self._folder(asked.get("outputData"), "jobOutputType", {"UriFile", "UriFolder"}),
            processes=instances * deployment.get("maxConcurrencyPerInstance", 1),
            mini_batch_size=deployment.get("miniBatchSize", 10),
            retries=retry.get("maxRetries", 3),
            timeout_s=float(seconds(retry.get("timeout", "PT30S")) or 30),
            error_threshold=deployment.get("errorThreshold", -1),
            environment=deployment.get("environmentVariables") or {},
        )

    def _folder(self, given: Any, kind: str, kinds: set[str]) -> str:
        """The blobs' name of the one input or output that a model deployment takes."""
        entries = list((given or {}).values())
        if len(entries) != 1 or entries[0].get(kind) not in kinds:
            raise Refusal(400, "BadArgument", f"One {kind} of {sorted(kinds)} is needed, got {given}.")
        store, found, folder = entries[0].get("uri", "").partition("/paths/")
        # As Microsoft's client writes it, and as the pages do.
        stores = {"azureml://datastores", f"{self._workspace.path}/datastores".lower()}
        if not found or store.rpartition("/")[0].lower() not in stores:
            raise Refusal(400, "BadArgument", f"{entries[0].get('uri')!r} is no path of a datastore.")
        return f"{CONTAINER}/{folder.rstrip('/')}"

    def _noting(self, path: str) -> Callable[[str], None]:
        def note(state: str) -> None:
            with self._resources.lock:
                found = self._resources.get(path)
                if found is not None:
                    found["properties"]["status"] = state
                    self._resources.put(path, found)

        return note

    def _get(self, call: Call, names: tuple[str, ...]) -> Answered:
        return said(self._resources.need(call.path))

    def _list(self, call: Call, names: tuple[str, ...]) -> Answered:
        return said({"value": self._resources.below(call.path)})

    def _put_compute(self, call: Call, names: tuple[str, ...]) -> Answered:
        refuse(problems(Kind.COMPUTE, names[0], call.json))
        wanted = call.json["properties"]["properties"]
        machine, most = self._account.size(wanted["vmSize"]), wanted["scaleSettings"]["maxNodeCount"]

        def check() -> None:
            if most * machine["vCPUs"] > self._account.limit:
                text = f"The specified subscription has a quota of {self._account.limit} processors."
                raise OperationFailed("ClusterCoreQuotaReached", text)

        return self._later(call.path, call.json, check)

    def _put_endpoint(self, call: Call, names: tuple[str, ...]) -> Answered:
        refuse(problems(Kind.BATCH_ENDPOINT, names[0], call.json))
        uri = f"https://{names[0].lower()}.{REGION}.inference.ml.azure.com/jobs"
        properties = {**call.json["properties"], "scoringUri": uri}
        content = {**call.json, "properties": properties, "type": f"{PROVIDER}/workspaces/batchEndpoints"}
        return self._later(call.path, content, lambda: None)

    def _put_deployment(self, call: Call, names: tuple[str, ...]) -> Answered:
        self._resources.need(call.path.partition("/deployments/")[0])
        refuse(problems(Kind.BATCH_DEPLOYMENT, names[1], call.json))
        properties = call.json["properties"]
        needed = [properties["compute"], properties["environmentId"], properties["codeConfiguration"]["codeId"]]
        for path in (*needed, properties["model"]["assetId"]):
            self._resources.need(path)
        return self._later(call.path, call.json, lambda: None)

    def _delete_compute(self, call: Call, names: tuple[str, ...]) -> Answered:
        if call.query.get("underlyingResourceAction") not in {"Delete", "Detach"}:
            raise Refusal(400, "BadArgument", "underlyingResourceAction is needed.")
        return self._delete(call, names)

    def _delete(self, call: Call, names: tuple[str, ...]) -> Answered:
        if self._resources.get(call.path) is None:
            return Answered(204)
        return self._operations.start(202, None, lambda: self._resources.remove(call.path))

    def _cancel(self, call: Call, names: tuple[str, ...]) -> Answered:
        path = call.path.rpartition("/")[0]
        self._resources.need(path)
        self._noting(path)("CancelRequested")
        return self._operations.start(202, None, self._jobs[names[0]].cancel)

    def _delete_job(self, call: Call, names: tuple[str, ...]) -> Answered:
        found = self._resources.get(call.path)
        if found is not None and found["properties"]["status"] not in _ENDED:
            raise Refusal(409, "UserError", f"Job {names[0]} has not ended.")
        with self._lock:
            self._jobs.pop(names[0], None)
            self._asked = {key: name for key, name in self._asked.items() if name != names[0]}
        return self._delete(call, names)

    def _later(self, path: str, content: dict[str, Any], work: Callable[[], None]) -> Answered:
        """Create or change a resource, as a long operation."""
        is_new = self._resources.get(path) is None
        self._resources.put(path, content)
        self._resources.mark(path, "Creating" if is_new else "Updating")

        def run() -> None:
            try:
                work()
            except OperationFailed:
                self._resources.mark(path, "Failed")
                raise
            self._resources.mark(path, "Succeeded")

        return self._operations.start(201 if is_new else 200, self._resources.get(path), run)


def _shown(name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A job as the resource manager shows it."""
    studio = {"Studio": {"jobServiceType": "Studio", "endpoint": f"https://ml.azure.com/runs/{name}"}}
    properties = {
        "jobType": "Pipeline",
        "displayName": name,
        "experimentName": "batch",
        "status": "NotStarted",
        "isArchived": False,
        "services": studio,
        "inputs": _data(asked.get("inputData"), "jobInputType"),
        "outputs": _data(asked.get("outputData"), "jobOutputType"),
    }
    return {"type": f"{PROVIDER}/workspaces/jobs", "properties": properties}


def _data(given: Any, kind: str) -> dict[str, Any]:
    """Inputs or outputs in the words of the resource manager, which are not those of the door."""
    words = {"UriFolder": "uri_folder", "UriFile": "uri_file"}
    return {name: {kind: words[one[kind]], "uri": one["uri"]} for name, one in given.items()}
