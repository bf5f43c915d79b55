"""Batch jobs on the rehearsed Azure, beyond what every place that has them promises."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelserve.backend import DeploymentSpec, Job, JobState, WorkPart
from modelserve.dataset.on_service import follow
from modelserve.errors import ConfigError, DeploymentNotFoundError, ModelServeError, PreflightError
from modelserve.session import Session
from modelserve.standin.faults import Failing, Fault, Interrupted, LostAnswer, Throttled
from modelserve.testing import models
from modelserve_azureml import AzureMLBackend, batch_bodies, names
from modelserve_azureml.batch_job import BatchPlace
from modelserve_azureml.code import code_files
from modelserve_azureml.names import cluster_name, endpoint_name
from modelserve_azureml.options import AzureMLOptions
from modelserve_azureml.rehearsal import batch_driver
from modelserve_azureml.rehearsal.cloud import AzureRehearsal
from modelserve_azureml.validation import Kind, problems

SPEC = DeploymentSpec("scored")
OPTIONS = AzureMLOptions(subscription="s", resource_group="g", workspace="w")


def line(part: int, row: int, value: float = 1.0) -> bytes:
    content = {"$row": [part, row], "inputs": {"x": [value, 2.0, 3.0, 4.0]}, "outputs": ["y"]}
    return json.dumps(content).encode() + b"\n"


def parts(count: int = 1) -> list[WorkPart]:
    return [WorkPart(number, line(number, 0) + line(number, 1)) for number in range(count)]


def served(azure: AzureRehearsal, **changes: Any) -> Any:
    return AzureMLBackend({**azure.options, **changes}).deploy(models.linear(), SPEC)


def ended(job: Job) -> JobState:
    return follow(job, lambda _status: None).state


def cluster(azure: AzureRehearsal, name: str, most: int = 4) -> str:
    """A cluster that somebody else made."""
    options = AzureMLOptions(subscription="s", resource_group="g", workspace="w", batch_instances=most)
    path = azure.workspace.compute(name)
    azure.manager.resources.put(path, batch_bodies.cluster(name, "westeurope", options, {}))
    return path


def deployment(**changes: Any) -> dict[str, Any]:
    body = batch_bodies.deployment("r", OPTIONS, model="m", environment="e", code="c", cluster="k", tags={})
    return {**body, "properties": {**body["properties"], **changes}}


def test_what_is_sent_for_a_job_is_what_microsofts_schema_takes() -> None:
    bodies = {
        Kind.COMPUTE: batch_bodies.cluster("ms-0", "r", OPTIONS, {"a": "b"}),
        Kind.ENVIRONMENT: batch_bodies.environment({"a": "b"}),
        Kind.CODE: batch_bodies.code("https://x/code", {"a": "b"}),
        Kind.BATCH_ENDPOINT: batch_bodies.endpoint("job-0", "r", {"a": "b"}),
        Kind.BATCH_DEPLOYMENT: deployment(),
    }
    assert {kind: problems(kind, "ms-0", body) for kind, body in bodies.items()} == {kind: [] for kind in bodies}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"outputAction": "summary_only"}, "outputAction"),
        ({"model": {"referenceType": "Id"}}, "model"),
        ({"model": None}, "model"),
        ({"miniBatchSize": 0}, "miniBatchSize"),
        ({"maxConcurrencyPerInstance": "two"}, "maxConcurrencyPerInstance"),
        ({"resources": {"instanceCount": 0}}, "instanceCount"),
        ({"resources": {"instances": 1}}, "instances"),
        ({"errorThreshold": -2}, "errorThreshold"),
        ({"retrySettings": {"timeout": "30", "maxRetries": 3}}, "retrySettings"),
        ({"environmentVariables": {"A": 1}}, "environmentVariables/A"),
        ({"instanceType": "x"}, "instanceType"),
    ],
)
def test_a_batch_deployment_that_azure_refuses_is_refused_here(change: dict[str, Any], told: str) -> None:
    assert told in " ".join(problems(Kind.BATCH_DEPLOYMENT, "batch", deployment(**change)))


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("a-name-of-17-long", {}, "16"),
        ("ms-0", {"vmSize": ""}, "vmSize"),
        ("ms-0", {"scaleSettings": {"minNodeCount": 2, "maxNodeCount": 1}}, "2 to 1"),
        ("ms-0", {"scaleSettings": {"minNodeCount": 0}}, "maxNodeCount"),
        ("ms-0", {"scaleSettings": {"maxNodeCount": 1, "nodeIdleTimeBeforeScaleDown": "120"}}, "duration"),
        ("ms-0", {"size": "x"}, "size"),
    ],
)
def test_a_cluster_that_azure_refuses_is_refused_here(name: str, change: dict[str, Any], told: str) -> None:
    body = batch_bodies.cluster("ms-0", "r", OPTIONS, {})
    body["properties"]["properties"] |= change
    assert told in " ".join(problems(Kind.COMPUTE, name, body))


def test_the_environment_holds_what_the_driver_and_the_runtime_import() -> None:
    conda = json.loads(batch_bodies.environment({})["properties"]["condaFile"])
    packages = next(one["pip"] for one in conda["dependencies"] if isinstance(one, dict))
    wanted = {"azureml-core", "numpy", "onnxruntime", "onnx", "pydantic", "msgspec", "orjson"}
    assert wanted <= {package.split("=")[0].split(">")[0].split("<")[0].split("!")[0] for package in packages}
    assert not any("extra" in package or ";" in package for package in packages)


@pytest.mark.parametrize("endpoint", ["a-0", "x" * 25 + "-abcdef", "a" * 21 + "-b-123456"])
def test_every_endpoint_gives_names_that_azure_takes_for_its_jobs(endpoint: str) -> None:
    found = names.batch_name(names.Workspace("s", "g", "w"), endpoint, "work")
    assert problems(Kind.BATCH_ENDPOINT, found, batch_bodies.endpoint("job", "r", {})) == []
    assert problems(Kind.COMPUTE, cluster_name(found), batch_bodies.cluster("ms-0", "r", OPTIONS, {})) == []
    assert names.batch_name(names.Workspace("s", "g", "w"), endpoint, "more") != found


_ALONE = """
import sys
# As in the service's environment: modelserve is nowhere but in the job's own code.
sys.path = [path for path in sys.path if "/src" not in path and "backends" not in path]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(getattr(finder, "__module__", finder))]
import importlib.util
spec = importlib.util.spec_from_file_location("driver", sys.argv[1])
driver = importlib.util.module_from_spec(spec)
spec.loader.exec_module(driver)
assert importlib.util.find_spec("modelserve") is None, "modelserve can be found without the job's code."
status = driver.main(*sys.argv[2:])
print(sys.modules["modelserve"].__file__)
sys.exit(status)
"""


def test_the_code_of_a_job_needs_nothing_of_this_machine_but_packages(tmp_path: Path) -> None:
    bundle = models.linear()
    for name, content in code_files():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "part-00007.jsonl").write_bytes(line(7, 1) + line(7, 0, 5.0))
    told = {"AZUREML_MODEL_DIR": str(bundle.path.parent), "AZUREML_BI_OUTPUT_PATH": str(tmp_path), "PATH": ""}
    told |= {"MODELSERVE_BATCH_WORKERS": "1", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    driver = [sys.executable, "-c", _ALONE, batch_driver.__file__, str(tmp_path / batch_bodies.SCRIPT)]
    done = subprocess.run(
        [*driver, "1", "0", "60", str(tmp_path / "part-00007.jsonl")],
        env=told,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "modelserve-product-" in done.stdout
    answers = [json.loads(one) for one in (tmp_path / "part-00007.answers.jsonl").read_bytes().splitlines()]
    wanted = Session(bundle).run({"x": [[1.0, 2.0, 3.0, 4.0], [5.0, 2.0, 3.0, 4.0]]})["y"]
    assert [one["$row"] for one in answers] == [[7, 1], [7, 0]]
    np.testing.assert_array_equal(np.array([one["outputs"]["y"] for one in answers], np.float32), wanted)


def test_a_driver_says_which_files_failed_by_its_status(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import time\ntried = []\ndef init(): pass\n"
        "def run(files):\n    tried.append(files[0])\n"
        "    if files[0] == 'late': time.sleep(9)\n"
        "    if files[0] == 'bad' or (files[0] == 'shaky' and tried.count('shaky') == 1): raise ValueError(files)\n"
        "    return files\n"
    )

    def status(*files: str) -> int:
        asked = [sys.executable, batch_driver.__file__, str(script), "1", "1", "0.2", *files]
        return subprocess.run(asked, capture_output=True, timeout=60).returncode

    assert [status("good", "shaky"), status("good", "bad"), status("late")] == [0, 42, 42]


@pytest.mark.long
def test_a_job_is_shared_by_instances_and_leaves_nothing_of_itself(
    azure: AzureRehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = served(azure, batch_instances=2)
    before = azure.leftovers()
    (tmp_path / "machine").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "machine"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    job = endpoint.batch("shared", parts(5))
    assert ended(job) is JobState.COMPLETED
    # Found by another backend, as by another process, and with nothing sent again.
    again = AzureMLBackend(azure.options).attach(SPEC.name).batch("shared", iter(()))
    for number in range(5):
        rows = [json.loads(one)["$row"] for one in again.lines(number).splitlines()]
        assert sorted(rows) == [[number, 0], [number, 1]]
    assert sum("/computes/ms-" in one for one in azure.leftovers()) == 1
    again.delete()
    assert azure.leftovers() == before
    assert [path.name for path in (tmp_path / "machine").glob("modelserve-*")] == []
    with pytest.raises(DeploymentNotFoundError):
        job.status()


@pytest.mark.long
# azure-ai-ml is built on marshmallow 3, and uses what the fourth version will not have.
@pytest.mark.filterwarnings("ignore:The `context` parameter is deprecated:DeprecationWarning")
def test_microsofts_own_client_sees_what_was_made_and_begins_jobs_of_it(azure: AzureRehearsal) -> None:
    from azure.ai.ml import Input, MLClient, Output
    from azure.identity import ClientSecretCredential

    way = {"proxies": {"https": azure.proxy.url}, "connection_verify": str(azure.options["ca"])}
    who = [azure.options[name] for name in ("tenant", "client_id", "client_secret")]
    where = [azure.options[name] for name in ("subscription", "resource_group", "workspace")]
    client = MLClient(ClientSecretCredential(*who, **way), *where, show_progress=False, enable_telemetry=False, **way)
    job = served(azure).batch("seen", parts())
    assert ended(job) is JobState.COMPLETED
    (endpoint,) = client.batch_endpoints.list()
    assert endpoint.name == job.name
    (version,) = client.batch_deployments.list(endpoint.name)
    assert (version.mini_batch_size, version.output_action, version.retry_settings.timeout) == (1, "summary_only", 3600)
    assert version.code_configuration.scoring_script == batch_bodies.SCRIPT
    machines = client.compute.get(cluster_name(job.name))
    assert (machines.type, machines.size, machines.min_instances) == ("amlcompute", "Standard_F4s_v2", 0)
    store = "azureml://datastores/workspaceblobstore"
    prefix = f"modelserve/{endpoint_name(azure.workspace, SPEC.name)}/seen"
    another = client.batch_endpoints.invoke(
        endpoint.name,
        deployment_name=batch_bodies.DEPLOYMENT,
        inputs={"lines": Input(type="uri_folder", path=f"{store}/paths/{prefix}/lines")},
        outputs={"answers": Output(type="uri_file", path=f"{store}/paths/{prefix}/more")},
    )
    while client.jobs.get(another.name).status not in {"Completed", "Failed", "Canceled"}:
        time.sleep(0.2)
    assert any(name.endswith(f"{prefix}/more/part-00000.answers.jsonl") for name in azure.blobs.names())
    job.delete()
    azure.manager.resources.remove(azure.workspace.job(another.name))


@pytest.mark.long
def test_a_cluster_that_is_named_is_used_and_stays(azure: AzureRehearsal) -> None:
    endpoint, path = served(azure, batch_cluster="nightly"), cluster(azure, "nightly")
    try:
        job = endpoint.batch("named", parts())
        assert not any("/computes/ms-" in one for one in azure.leftovers())
        assert ended(job) is JobState.COMPLETED
        job.delete()
        assert path in azure.leftovers()
    finally:
        azure.manager.resources.remove(path)


@pytest.mark.long
def test_storage_without_secrets_is_opened_by_the_callers_sign_in(azure: AzureRehearsal) -> None:
    azure.manager.account.is_keyless = True
    job = served(azure).batch("keyless", parts())
    assert ended(job) is JobState.COMPLETED
    assert job.lines(0).count(b"outputs") == 2
    assert "Datastores.ListSecrets" not in azure.faults.calls


@pytest.mark.long
def test_a_job_without_rows_is_done_at_once_and_costs_nothing(azure: AzureRehearsal) -> None:
    endpoint = served(azure)
    before = azure.leftovers()
    job = endpoint.batch("empty", iter(()))
    assert job.status().state is JobState.COMPLETED
    assert not any("batchEndpoints" in one or "computes" in one for one in azure.leftovers())
    job.delete()
    assert azure.leftovers() == before


@pytest.mark.long
def test_a_job_that_fails_says_why_in_the_words_of_the_script(azure: AzureRehearsal) -> None:
    endpoint = served(azure)
    azure.faults.switches.crash_at_start = True
    job = endpoint.batch("crashing", parts())
    assert ended(job) is JobState.FAILED
    status = job.status()
    assert "no bundle of modelserve" in status.message
    assert "https://ml.azure.com/runs/" in status.message
    job.delete()
    azure.faults.clear()
    azure.faults.plan("Batch.Run", Failing("UserError", "Ordered by a test."))
    job = endpoint.batch("crashing", parts())
    assert ended(job) is JobState.FAILED
    assert "The job ended as Failed." in job.status().message
    job.delete()


@pytest.mark.long
def test_a_job_that_waits_for_machines_can_be_stopped(azure: AzureRehearsal) -> None:
    endpoint = served(azure)
    before = azure.leftovers()
    azure.faults.switches.start_delay_s = 600.0
    job = endpoint.batch("waiting", parts())
    assert job.status().state is JobState.RUNNING
    assert job.status().stage == "Queued"
    began = time.monotonic()
    job.delete()
    assert time.monotonic() - began < 30
    assert azure.leftovers() == before


@pytest.mark.long
def test_a_record_that_the_service_keeps_hinders_nothing(azure: AzureRehearsal) -> None:
    endpoint = served(azure)
    before = azure.leftovers()
    azure.faults.plan("Jobs.Delete", Failing("UserError", "Jobs are not deleted.", 405), times=9)
    for _ in range(2):
        job = endpoint.batch("kept", parts())
        assert ended(job) is JobState.COMPLETED
        assert job.lines(0).count(b"outputs") == 2
        job.delete()
    kept = [one for one in azure.leftovers() if one not in before]
    assert [one.rpartition("/jobs/")[0] for one in kept] == [azure.workspace.path] * 2
    for record in kept:
        azure.manager.resources.remove(record)


@pytest.mark.long
def test_what_a_killed_call_left_goes_with_the_next_one_and_with_the_endpoint(azure: AzureRehearsal) -> None:
    backend = AzureMLBackend(azure.options)
    endpoint = backend.deploy(models.linear(), SPEC)
    before = azure.leftovers()
    place = BatchPlace(backend._site, endpoint_name(azure.workspace, SPEC.name), "killed")
    for _ in range(2):
        place.site.store.put(place.sent(0), line(0, 0))
        path, body = place.cluster, batch_bodies.cluster("ms-0", "westeurope", OPTIONS, {})
        azure.manager.resources.put(path, body)
        endpoint.batch("killed", parts()).delete()
        assert azure.leftovers() == before
    place.site.store.put(place.sent(0), line(0, 0))
    azure.manager.resources.put(place.cluster, body)
    endpoint.delete()
    assert azure.leftovers() == []


@pytest.mark.long
def test_who_may_not_look_into_the_storage_may_delete_an_endpoint(azure: AzureRehearsal) -> None:
    endpoint = served(azure)
    azure.faults.plan("Datastores.Get", Failing("AuthorizationFailed", "no", 403), times=9)
    endpoint.delete()
    assert azure.leftovers() == []
    assert "Datastores.Get" in azure.faults.calls


@pytest.mark.long
def test_what_a_job_lacks_is_told_before_anything_is_made(azure: AzureRehearsal) -> None:
    endpoint = served(azure)
    before = azure.leftovers()
    azure.manager.account.limit = 8
    with pytest.raises(PreflightError, match=r"1 x Standard_F4s_v2 need 4 processors .* 0 of 8 are free"):
        endpoint.batch("refused", parts())
    azure.manager.account.limit = 100
    azure.manager.account.actions = ["*/read", "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/*"]
    with pytest.raises(PreflightError, match="batchEndpoints/write"):
        endpoint.batch("refused", parts())
    azure.manager.account.actions = ["*"]
    with pytest.raises(PreflightError, match="no cluster 'absent'"):
        AzureMLBackend({**azure.options, "batch_cluster": "absent"}).attach(SPEC.name).batch("refused", parts())
    cluster(azure, "small", 1)
    many = AzureMLBackend({**azure.options, "batch_cluster": "small", "batch_instances": 3})
    with pytest.raises(PreflightError, match="at most 1 instances"):
        many.attach(SPEC.name).batch("refused", parts())
    azure.manager.resources.remove(azure.workspace.compute("small"))
    assert azure.leftovers() == before


def _calls(azure: AzureRehearsal, endpoint: Any) -> list[tuple[str, int]]:
    """What a batch call asks, in order, each once."""
    azure.faults.clear()
    endpoint.batch("matrix", parts(2)).delete()
    azure.faults.clear()
    job = endpoint.batch("matrix", parts(2))
    seen: Counter[str] = Counter()
    found = []
    for operation in list(azure.faults.calls):
        seen[operation] += 1
        if seen[operation] == 1 and not operation.startswith(("Batch.", "Operations.")):
            found.append((operation, seen[operation]))
    job.delete()
    return found


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "fault", [Failing("BadArgument", "Ordered by a test.", 400), Throttled(), LostAnswer(), Interrupted()], ids=repr
)
def test_a_batch_call_that_anything_befalls_leaves_nothing(azure: AzureRehearsal, fault: Fault) -> None:
    endpoint = served(azure)
    before = azure.leftovers()
    calls = _calls(azure, endpoint)
    assert {"Blob.PUT", "Computes.Put", "BatchEndpoints.Put", "BatchDeployments.Put", "BatchJobs.Begin"} <= {
        operation for operation, _ in calls
    }
    wrong = []
    for operation, nth in calls:
        azure.faults.clear()
        azure.faults.plan(operation, fault, nth=nth)
        try:
            job = endpoint.batch("matrix", parts(2))
        except (ModelServeError, KeyboardInterrupt):
            job = None
        azure.faults.clear()
        if job is not None:
            job.delete()
        left = [one for one in azure.leftovers() if one not in before]
        if left:
            wrong.append((operation, nth, left))
            AzureMLBackend(azure.options).attach(SPEC.name).batch("matrix", parts(2)).delete()
    assert wrong == []


def test_a_job_that_cannot_be_made_there_is_refused_by_the_options() -> None:
    with pytest.raises(ConfigError, match="batch_instances"):
        AzureMLBackend({"subscription": "s", "resource_group": "g", "workspace": "w", "batch_instances": 0})
