"""What the rehearsed Azure refuses, before anything is billed or while it is made; whatever it is, nothing is left."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest
from azure.storage.blob import ContainerClient

from modelserve.backend import DeploymentSpec, Scale, State, Verdict
from modelserve.backend.journal import Journal, unfinished
from modelserve.backend.marks import Marks
from modelserve.deployment import Deployment
from modelserve.errors import (
    AccessDeniedError,
    BackendError,
    ConfigError,
    DeploymentNotFoundError,
    ModelServeError,
    NotReadyError,
    NotSupportedError,
    PreflightError,
    QuotaError,
    StartError,
)
from modelserve.image import RefreshToken
from modelserve.standin.faults import Failing
from modelserve.testing import models
from modelserve_azureml import AzureMLBackend, images, names
from modelserve_azureml.names import endpoint_name
from modelserve_azureml.rehearsal.blobs import HOST
from modelserve_azureml.rehearsal.cloud import IMAGE, REGISTRY_HOST, AzureRehearsal

SPEC = DeploymentSpec("refused")


def no_quota(azure: AzureRehearsal) -> None:
    azure.manager.account.limit = 4


def no_role(azure: AzureRehearsal) -> None:
    azure.manager.account.actions = ["*/read"]


def no_provider(azure: AzureRehearsal) -> None:
    azure.manager.account.unregistered.add("Microsoft.MachineLearningServices")


@pytest.mark.parametrize(
    ("switch", "told"),
    [(no_quota, r"8 processors .* 4 of 4 are free"), (no_role, "onlineEndpoints/write"), (no_provider, "az provider")],
)
def test_what_the_account_lacks_is_told_before_anything_is_made(
    azure: AzureRehearsal, switch: Callable[[AzureRehearsal], None], told: str
) -> None:
    switch(azure)
    with pytest.raises(PreflightError, match=told):
        azure.backend.deploy(models.linear(), SPEC)
    made = {name for name in azure.faults.calls if name.endswith((".Put", ".Patch", ".Upload"))}
    assert made == set()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"instance_type": "Standard_Nonsense"}, "has no 'Standard_Nonsense'"),
        ({"instance_type": "Standard_F2s_v2"}, "too small"),
        ({"workers": 64}, "Take fewer workers"),
    ],
)
def test_a_configuration_that_cannot_work_is_told_before_anything_is_made(
    azure: AzureRehearsal, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(PreflightError, match=told):
        AzureMLBackend({**azure.options, **change}).deploy(models.linear(), SPEC)


def test_everything_that_is_wrong_is_told_at_once(azure: AzureRehearsal) -> None:
    no_quota(azure)
    no_role(azure)
    refused = [one for one in azure.backend.preflight(models.linear(), SPEC) if one.verdict is Verdict.REFUSED]
    assert [one.name for one in refused] == ["roles", "quota"]


def test_a_name_that_somebody_else_in_the_region_has_is_refused_and_nothing_is_left(azure: AzureRehearsal) -> None:
    azure.manager.endpoints.taken.add(endpoint_name(azure.workspace, SPEC.name))
    with pytest.raises(ConfigError, match="endpoint_name"):
        azure.backend.deploy(models.linear(), SPEC)
    assert azure.leftovers() == []


def test_quota_that_is_gone_meanwhile_is_told_as_such_and_nothing_is_left(azure: AzureRehearsal) -> None:
    azure.faults.plan("Deployments.Put", Failing("OutOfQuota", "Not enough quota available"))
    with pytest.raises(QuotaError, match="another instance_type"):
        azure.backend.deploy(models.linear(), SPEC)
    assert azure.leftovers() == []


def test_an_image_that_the_registry_lacks_is_refused_and_nothing_is_left(azure: AzureRehearsal) -> None:
    backend = AzureMLBackend({**azure.options, "image": "elsewhere.azurecr.io/modelserve:1"})
    with pytest.raises(ConfigError, match="AcrPull"):
        backend.deploy(models.linear(), SPEC)
    assert azure.leftovers() == []


def test_a_secret_that_is_wrong_is_told_as_such(azure: AzureRehearsal) -> None:
    with pytest.raises(AccessDeniedError, match="Signing in"):
        AzureMLBackend({**azure.options, "client_secret": "wrong"}).list()


def test_another_workspace_is_not_found(azure: AzureRehearsal) -> None:
    with pytest.raises(DeploymentNotFoundError):
        AzureMLBackend({**azure.options, "workspace": "another"}).list()


def test_what_no_managed_endpoint_can_do_is_refused_at_once(azure: AzureRehearsal) -> None:
    with pytest.raises(NotSupportedError, match="at least one instance"):
        azure.backend.deploy(models.linear(), DeploymentSpec("refused", Scale(0, 1)))
    with pytest.raises(NotSupportedError, match="wait=True"):
        azure.backend.deploy(models.linear(), DeploymentSpec("refused", wait=False))
    assert azure.faults.calls == []


def test_a_host_that_is_not_azures_leads_nowhere(azure: AzureRehearsal) -> None:
    import httpx

    with httpx.Client(proxy=azure.proxy.url) as client, pytest.raises(httpx.ProxyError, match="403"):
        client.get("https://example.org/")
    assert azure.proxy.refused == ["example.org:443"]
    azure.proxy.refused.clear()


def test_an_operation_that_names_its_result_only_is_waited_for_too(azure: AzureRehearsal) -> None:
    azure.manager.operations.only_results = True
    try:
        azure.faults.switches.crash_at_start = True
        with pytest.raises(ModelServeError, match="crashed"):
            azure.backend.deploy(models.linear(), SPEC)
        assert azure.leftovers() == []
        assert "Operations.GetResult" in azure.faults.calls
    finally:
        azure.manager.operations.only_results = False


def test_no_other_host_is_shown_the_token(azure: AzureRehearsal) -> None:
    backend = azure.backend
    assert isinstance(backend, AzureMLBackend)
    with pytest.raises(BackendError, match="not shown our token"):
        backend._site.arm.every("https://management.azure.com.example.org/next?token=1")


@pytest.mark.parametrize("state", ["Creating", "Succeeded"])
def test_what_another_program_is_making_is_left_alone_and_what_one_left_is_removed(
    azure: AzureRehearsal, state: str
) -> None:
    bundle, endpoint = models.linear(), endpoint_name(azure.workspace, SPEC.name)
    path, marks = azure.workspace.endpoint(endpoint), names.tags({}, Marks.of(SPEC.name, bundle.digest))
    properties = {"authMode": "Key", "traffic": {}, "provisioningState": state}
    azure.manager.resources.put(path, {"location": "westeurope", "tags": marks, "properties": properties})
    (status,) = azure.backend.list()
    assert status.state is (State.STARTING if state == "Creating" else State.FAILED)
    azure.faults.switches.crash_at_start = True
    with pytest.raises(NotReadyError if state == "Creating" else StartError):
        azure.backend.deploy(bundle, SPEC)
    assert (path in azure.leftovers()) is (state == "Creating")


def test_what_a_killed_deploy_left_is_found_by_its_name(azure: AzureRehearsal) -> None:
    backend, bundle = azure.backend, models.linear()
    assert isinstance(backend, AzureMLBackend)
    endpoint, tags = endpoint_name(azure.workspace, SPEC.name), names.tags({}, Marks.of(SPEC.name, bundle.digest))
    journal = Journal("azureml", SPEC.name)
    backend._site.assets.model(endpoint, bundle, tags, journal, lambda _line: None)
    backend._site.assets.environment(endpoint, IMAGE, tags, journal)
    assert unfinished("azureml", SPEC.name)
    (status,) = backend.list()
    assert (status.name, status.state, status.digest) == (SPEC.name, State.FAILED, bundle.digest)
    assert f"models/{endpoint}" in status.message
    backend.delete("another")
    assert len(azure.leftovers()) == 5
    backend.delete(SPEC.name)
    assert backend.list() == []
    assert azure.leftovers() == []
    assert not unfinished("azureml", SPEC.name)


def test_the_workspaces_registry_is_signed_in_to_and_no_other(azure: AzureRehearsal) -> None:
    backend = AzureMLBackend({**azure.options, "image": ""})
    own = images.registry(backend._site)
    assert own == REGISTRY_HOST
    login = images.login(own, backend._site, backend._credentials, backend._reach)
    assert isinstance(login(own), RefreshToken)
    assert login("docker.io") is None
    azure.faults.plan("Registry.Exchange", Failing("UNAUTHORIZED", "authentication required", 401))
    with pytest.raises(AccessDeniedError, match="AcrPush"):
        login(own)


def test_models_of_others_are_neither_listed_nor_looked_into(azure: AzureRehearsal) -> None:
    azure.backend.list()
    azure.faults.calls.clear()
    for name in ("fraud", "churn-v2"):
        path = f"{azure.workspace.path}/models/{name}/versions/1"
        azure.manager.resources.put(path, {"properties": {"tags": {}, "modelUri": "x"}})
    unmarked = f"{azure.workspace.path}/environments/prices-0a1b2c/versions/1"
    azure.manager.resources.put(unmarked, {"properties": {"tags": {}, "image": "x"}})
    try:
        assert azure.backend.list() == []
        assert azure.faults.calls.count("Assets.ListVersions") == 1  # of the one that is named as ours are
    finally:
        azure.manager.resources.remove(f"{azure.workspace.path}/models/fraud/versions/1")
        azure.manager.resources.remove(f"{azure.workspace.path}/models/churn-v2/versions/1")
        azure.manager.resources.remove(unmarked)


def test_who_may_not_look_at_models_may_list_endpoints(azure: AzureRehearsal) -> None:
    azure.faults.plan("Assets.List", Failing("AuthorizationFailed", "no", 403), times=9)
    assert azure.backend.list() == []
    assert "Assets.List" in azure.faults.calls


@pytest.mark.long
def test_an_update_for_which_there_is_no_quota_is_told_before_anything_is_made(azure: AzureRehearsal) -> None:
    endpoint = azure.backend.deploy(models.linear(), SPEC)
    before = azure.leftovers()
    azure.manager.account.limit = 12  # 8 are the running version's, the service's reserve included
    azure.faults.calls.clear()
    with pytest.raises(PreflightError, match=r"beside the old one .* need 8 processors .* 4 of 12 are free"):
        endpoint.update(models.linear(seed=1))
    made = {name for name in azure.faults.calls if name.endswith((".Put", ".Patch", ".Upload"))}
    assert made == set()
    assert azure.leftovers() == before
    azure.manager.account.limit = 16
    endpoint.update(models.linear(seed=1))
    assert endpoint.status().digest == models.linear(seed=1).digest


@pytest.mark.long
def test_a_private_endpoint_refuses_callers_from_the_internet(azure: AzureRehearsal) -> None:
    backend = AzureMLBackend({**azure.options, "public_network": False})
    deployment = Deployment(backend.deploy(models.linear(), SPEC), backend)
    content = azure.manager.resources.need(azure.workspace.endpoint(endpoint_name(azure.workspace, SPEC.name)))
    assert content["properties"]["publicNetworkAccess"] == "Disabled"
    x = models.linear().example()["x"]
    with pytest.raises(AccessDeniedError, match="public_network = false"):
        deployment.predict(x)
    azure.door.is_private = True
    assert deployment.predict(x).shape == (len(x), 3)


def test_who_may_not_look_at_permissions_may_deploy_all_the_same(azure: AzureRehearsal) -> None:
    azure.faults.plan("Permissions.List", Failing("AuthorizationFailed", "no", 403))
    azure.faults.plan("Providers.Get", Failing("AuthorizationFailed", "no", 403))
    findings = {one.name: one.verdict for one in azure.backend.preflight(models.linear(), SPEC)}
    assert findings["roles"] is findings["provider"] is Verdict.LIVE_ONLY
    assert Verdict.REFUSED not in findings.values()


def test_a_size_with_a_gpu_is_refused_for_our_own_image(azure: AzureRehearsal) -> None:
    options = {**azure.options, "image": "", "instance_type": "Standard_NC4as_T4_v3"}
    findings = {one.name: one for one in AzureMLBackend(options).preflight(models.linear(), SPEC)}
    assert findings["image"].verdict is Verdict.REFUSED
    assert "Standard_NC4as_T4_v3" in findings["image"].text


def test_a_large_model_goes_in_blocks_as_microsofts_client_sends_it(azure: AzureRehearsal) -> None:
    content = secrets.token_bytes(300_000)
    client = ContainerClient.from_container_url(
        f"https://{HOST}/somewhere?{azure.blobs.sign()}",
        proxies={"https": azure.proxy.url},
        connection_verify=str(azure.options["ca"]),
        max_single_put_size=50_000,
        max_block_size=50_000,
    )
    with client:
        client.upload_blob("large", content, max_concurrency=3)
        assert azure.faults.calls.count("Blob.PUT") == 7
        assert client.download_blob("large").readall() == content
        assert [blob.name for blob in client.list_blobs()] == ["large"]
        client.delete_blob("large")
