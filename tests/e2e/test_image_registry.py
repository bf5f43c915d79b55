"""Images on their way into registries: the stand-in, strict to the specification, and with each cloud's ways."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from modelserve import image
from modelserve.errors import AccessDeniedError, RegistryError
from modelserve.image.assembly import CONFIG, Image
from modelserve.image.blob import Blob, digest_of
from modelserve.image.repository import MANIFEST
from modelserve.image.session import Session
from modelserve.image.store import in_store
from modelserve.image.upload import Outcome
from modelserve.standin.registry import Door, RegistryStandIn
from modelserve.standin.registry.access import PASSWORD, REFRESH_TOKEN, USER

MIB = 1 << 20
EXISTS, MOUNTED, UPLOADED = Outcome.EXISTS, Outcome.MOUNTED, Outcome.UPLOADED


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "waits_s", (0.0, 0.0, 0.0))


@pytest.fixture
def registry() -> Iterator[RegistryStandIn]:
    with RegistryStandIn() as found:
        yield found


def some_image(*layers: bytes, origin: image.Reference | None = None) -> Image:
    """An image of a few bytes; what is in its layers is nobody's business here."""
    blobs = tuple(in_store("application/vnd.oci.image.layer.v1.tar", content) for content in layers)
    blobs = tuple(Blob(b.media_type, b.digest, b.size_bytes, b.bring, origin) for b in blobs)
    config = in_store(CONFIG, b"{}")
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor,
            "layers": [blob.descriptor for blob in blobs],
        }
    ).encode()
    return Image(digest_of(manifest), "0.1-test", image.Platform("amd64"), manifest, config, blobs, ())


def password(_registry: str) -> image.Login:
    return image.Password(USER, PASSWORD)


def sent(registry: RegistryStandIn, method: str) -> list[int]:
    return [asked.body_bytes for asked in registry.asked if asked.method == method and "/blobs/uploads/" in asked.path]


def test_what_was_pushed_is_there_by_tag_and_by_digest(registry: RegistryStandIn) -> None:
    made = some_image(b"one", b"two")
    pushed = image.push(made, f"{registry.address}/team/app:1", credentials=image.anonymous)
    assert str(pushed.reference) == f"{registry.address}/team/app@{made.digest}"
    assert list(pushed.outcomes.values()) == [UPLOADED] * 3
    assert registry.contents.manifests["team/app", "1"][1] == made.manifest
    assert registry.contents.manifests["team/app", made.digest][1] == made.manifest


def test_a_second_push_sends_nothing(registry: RegistryStandIn) -> None:
    made, place = some_image(b"one"), f"{registry.address}/team/app"
    image.push(made, place, credentials=image.anonymous)
    registry.asked.clear()
    assert image.push(made, place, credentials=image.anonymous).outcomes == {}
    assert [asked.method for asked in registry.asked] == ["HEAD"]


def test_what_is_there_already_is_skipped(registry: RegistryStandIn) -> None:
    image.push(some_image(b"one"), f"{registry.address}/team/app", credentials=image.anonymous)
    pushed = image.push(some_image(b"one", b"two"), f"{registry.address}/team/app:2", credentials=image.anonymous)
    assert list(pushed.outcomes.values()) == [EXISTS, UPLOADED, EXISTS]


def test_a_base_in_the_same_registry_is_taken_over_without_being_fetched(registry: RegistryStandIn) -> None:
    base = image.Reference(registry.address, "library/base")
    image.push(some_image(b"one"), base.tagged("1"), credentials=image.anonymous)
    made = some_image(b"one", origin=base)
    pushed = image.push(made, f"{registry.address}/team/app", credentials=image.anonymous)
    assert pushed.outcomes[made.layers[0].digest] is MOUNTED

    registry.mounts = False
    pushed = image.push(made, f"{registry.address}/team/other", credentials=image.anonymous)
    assert pushed.outcomes[made.layers[0].digest] is UPLOADED


@pytest.mark.parametrize("login", [image.Password(USER, PASSWORD), image.RefreshToken(REFRESH_TOKEN)])
def test_a_token_is_fetched_where_the_registry_asks_for_one(login: image.Login) -> None:
    with RegistryStandIn(door=Door.TOKEN) as registry:
        made, base = some_image(b"one"), image.Reference(registry.address, "library/base")
        image.push(made, base.tagged("1"), credentials=lambda _: login)
        made = some_image(b"one", origin=base)
        pushed = image.push(made, f"{registry.address}/team/app", credentials=lambda _: login)
        assert list(pushed.outcomes.values()) == [MOUNTED, UPLOADED]


def test_a_bearer_is_shown_as_it_is() -> None:
    with RegistryStandIn(door=Door.TOKEN) as registry:
        registry.access.tokens["mine"] = {"team/app:pull", "team/app:push"}
        place = f"{registry.address}/team/app"
        image.push(some_image(b"one"), place, credentials=lambda _: image.Bearer("mine"))
        with pytest.raises(AccessDeniedError):
            image.push(some_image(b"one"), place, credentials=lambda _: image.Bearer("other"))


def test_a_password_is_shown_where_the_registry_asks_for_one() -> None:
    with RegistryStandIn(door=Door.PASSWORD) as registry:
        image.push(some_image(b"one"), f"{registry.address}/team/app", credentials=password)


@pytest.mark.parametrize("door", [Door.PASSWORD, Door.TOKEN])
@pytest.mark.parametrize("login", [None, image.Password(USER, "wrong")])
def test_who_may_not_is_told_so_and_nothing_is_sent(door: Door, login: image.Login | None) -> None:
    with RegistryStandIn(door=door) as registry:
        with pytest.raises(AccessDeniedError, match="does not let us"):
            image.push(some_image(b"one"), f"{registry.address}/team/app", credentials=lambda _: login)
        assert registry.contents.blobs == {}


def test_a_login_that_expires_on_the_way_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    with RegistryStandIn(door=Door.TOKEN) as registry:
        asked: list[str] = []
        check = registry.access.check

        def login(name: str) -> image.Login:
            asked.append(name)
            return image.Password(USER, PASSWORD)

        def expiring(authorization: str, url: str, repository: str, action: str) -> None:
            if [call.method for call in registry.asked].count("PATCH") == 2:
                registry.access.tokens.pop(authorization.removeprefix("Bearer "), None)
            check(authorization, url, repository, action)

        monkeypatch.setattr(type(registry.access), "check", lambda _, *given: expiring(*given))
        made = some_image(b"x" * (4 * MIB))
        pushed = image.push(made, f"{registry.address}/team/app", credentials=login, chunk_bytes=MIB)
        assert pushed.outcomes[made.layers[0].digest] is UPLOADED
        assert len(asked) > 2


def test_a_refusal_that_does_not_say_how_to_log_in_is_final(registry: RegistryStandIn) -> None:
    registry.fail("POST", 401)
    with pytest.raises(AccessDeniedError, match="nothing that it names"):
        image.push(some_image(b"one"), f"{registry.address}/team/app", credentials=password)


def test_chunks_are_as_large_as_the_registry_takes_them() -> None:
    with RegistryStandIn(most_bytes=2 * MIB) as registry:
        made, place = some_image(b"x" * (5 * MIB)), f"{registry.address}/team/app"
        with pytest.raises(RegistryError, match="413"):
            image.push(made, place, credentials=image.anonymous)
        registry.asked.clear()
        image.push(made, place, credentials=image.anonymous, chunk_bytes=2 * MIB)
        assert sent(registry, "PATCH") == [2 * MIB, 2 * MIB, MIB, 2]


def test_a_registry_that_takes_no_chunks_is_sent_none() -> None:
    with RegistryStandIn(chunks=False) as registry:
        made = some_image(b"x" * (5 * MIB))
        image.push(made, f"{registry.address}/team/app", credentials=image.anonymous)
        assert sent(registry, "PUT") == [5 * MIB, 2]


def test_who_takes_what_is_known() -> None:
    from modelserve.image.upload import chunk_bytes_of

    assert chunk_bytes_of("team.azurecr.io") == 4 * MIB
    assert chunk_bytes_of("1.dkr.ecr.eu-west-1.amazonaws.com") is None
    assert chunk_bytes_of("europe-docker.pkg.dev") is None


@pytest.mark.parametrize("after", [0, MIB // 2, MIB - 1])
def test_what_broke_off_goes_on_where_it_stands(registry: RegistryStandIn, after: int) -> None:
    made = some_image(bytes(range(256)) * (16 * 1024))  # 4 MiB
    registry.break_off("PATCH", after)
    pushed = image.push(made, f"{registry.address}/team/app", credentials=image.anonymous, chunk_bytes=MIB)
    assert pushed.outcomes[made.layers[0].digest] is UPLOADED
    uploads = [asked for asked in registry.asked if asked.method == "POST"]
    assert len(uploads) == 2, "One for each blob: none was begun again."
    assert sum(sent(registry, "PATCH")) == 4 * MIB + 2, "No byte was taken twice."
    assert sent(registry, "PATCH")[0] == after


def test_an_upload_that_the_registry_forgot_begins_again(registry: RegistryStandIn) -> None:
    made = some_image(b"x" * (4 * MIB))
    registry.break_off("PATCH", MIB // 2)
    registry.fail("GET", 404)
    image.push(made, f"{registry.address}/team/app", credentials=image.anonymous, chunk_bytes=MIB)
    assert sum(sent(registry, "PATCH")) == 4 * MIB + MIB // 2 + 2


def test_a_whole_blob_that_broke_off_is_sent_again(registry: RegistryStandIn) -> None:
    made = some_image(b"x" * (4 * MIB))
    registry.break_off("PUT", MIB)
    image.push(made, f"{registry.address}/team/app", credentials=image.anonymous)
    assert sent(registry, "PUT") == [MIB, 4 * MIB, 2]


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_registry_that_has_a_bad_moment_is_asked_again(registry: RegistryStandIn, method: str, status: int) -> None:
    registry.fail(method, status, times=2)
    made = some_image(b"x" * MIB)
    place = f"{registry.address}/team/app"
    pushed = image.push(made, place, credentials=image.anonymous, chunk_bytes=MIB // 2)
    assert registry.contents.manifests["team/app", pushed.reference.digest]


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
def test_a_registry_that_fails_for_good_is_given_up_and_gets_no_manifest(
    registry: RegistryStandIn, method: str
) -> None:
    registry.fail(method, 503, times=100)
    with pytest.raises(RegistryError):
        image.push(some_image(b"x"), f"{registry.address}/team/app", credentials=image.anonymous, chunk_bytes=MIB)
    assert registry.contents.manifests == {}


def test_a_missing_repository_is_named() -> None:
    with (
        RegistryStandIn(repositories={"there"}) as registry,
        pytest.raises(RegistryError, match=r"NAME_UNKNOWN.*team/app"),
    ):
        image.push(some_image(b"x"), f"{registry.address}/team/app", credentials=image.anonymous)


def test_a_registry_that_is_not_there_is_named() -> None:
    with RegistryStandIn() as registry:
        address = registry.address
    with pytest.raises(RegistryError, match=f"{address}.*4 attempts"):
        image.push(some_image(b"x"), f"{address}/team/app", credentials=image.anonymous)


def test_progress_ends_at_all_bytes(registry: RegistryStandIn) -> None:
    said: list[image.Progress] = []
    made = some_image(b"x" * (3 * MIB))
    image.push(made, f"{registry.address}/team/app", credentials=image.anonymous, on_progress=said.append)
    done = [progress.done_bytes for progress in said]
    assert done == sorted(done)
    assert done[-1] == said[-1].all_bytes == 3 * MIB + 2
    assert len(done) > 4
