"""What other packages offer is found without being imported, and what is broken says so itself."""

import sys
from pathlib import Path

import pytest

from modelserve import plugins
from modelserve.backend import Backend, load_backend, open_backend
from modelserve.errors import MissingExtraError, PluginError, UnknownBackendError
from modelserve.testing.plugin import install_plugin


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name.startswith("offered_")]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def offer(site: Path, name: str, code: str, *, attribute: str = "Offered") -> None:
    """A backend `name`, in a module of its own that holds `code`."""
    module = f"offered_{name.replace('-', '_')}"
    (site / f"{module}.py").write_text(code)
    install_plugin(site, name=f"plugin-{name}", backends={name: f"{module}:{attribute}"})


WORKING = """
from modelserve.testing.memory import InMemoryBackend

class Offered(InMemoryBackend):
    name = "working"
"""


def test_one_that_is_installed_is_listed_and_loaded_by_name(site: Path) -> None:
    offer(site, "working", WORKING)
    assert "working" in plugins.names(plugins.BACKENDS)
    assert "offered_working" not in sys.modules
    assert issubclass(load_backend("working"), Backend)
    assert open_backend("working", {}).name == "working"


def test_listing_imports_nothing_even_of_a_broken_one(site: Path) -> None:
    offer(site, "broken", "raise RuntimeError('imported')")
    assert "broken" in plugins.names(plugins.BACKENDS)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownBackendError, match=r"No backend 'cloud9' is installed; installed are .*'local'"):
        load_backend("cloud9")


def test_a_missing_package_of_anothers_plugin_is_answered_with_that_package(site: Path) -> None:
    offer(site, "lacking", "import surely_not_installed.inner")
    with pytest.raises(MissingExtraError, match=r"'surely_not_installed', which is not installed.*pip install surely"):
        load_backend("lacking")


def test_a_missing_package_of_ours_is_answered_with_our_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = plugins.find(plugins.BACKENDS, "local")
    assert entry is not None
    for name in [name for name in sys.modules if name.partition(".")[0] in {"modelserve_local", "pydantic"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "modelserve_local", None)
    with pytest.raises(ImportError):
        plugins.load(entry)  # the plug-in itself is not there: its own error
    assert plugins._remedy(entry, "boto3") == '"modelserve[local]"'


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("raise RuntimeError('of its own')", RuntimeError),
        ("from json import no_such_name", ImportError),
        ("import offered_broken.part", ModuleNotFoundError),
        ("import modelserve.no_such_room", ModuleNotFoundError),
        ("Other = 1", AttributeError),
    ],
)
def test_a_broken_one_raises_its_own_error(site: Path, code: str, kind: type[Exception]) -> None:
    offer(site, "broken", code)
    with pytest.raises(kind) as caught:
        load_backend("broken")
    assert not isinstance(caught.value, MissingExtraError)


def test_one_that_is_no_backend_is_refused(site: Path) -> None:
    offer(site, "odd", "Offered = 3")
    with pytest.raises(PluginError, match=r"'offered_odd:Offered', offered as backend 'odd', is no"):
        load_backend("odd")


def test_one_of_another_contract_is_refused(site: Path) -> None:
    offer(site, "older", WORKING + "    contract_version = 0\n")
    with pytest.raises(PluginError, match=r"written for contract 0.*belong together"):
        load_backend("older")


def test_two_that_offer_one_name_are_both_named(site: Path) -> None:
    install_plugin(site, name="first", backends={"twice": "first:Offered"})
    install_plugin(site, name="second", backends={"twice": "second:Offered"})
    with pytest.raises(PluginError, match=r"'twice' is offered by first:Offered, second:Offered. Uninstall"):
        load_backend("twice")


def test_one_that_is_found_twice_on_the_path_is_one(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(site, "working", WORKING)
    other = tmp_path / "other"
    install_plugin(other, name="plugin-working", backends={"working": "offered_working:Offered"})
    monkeypatch.syspath_prepend(other)
    assert load_backend("working").name == "working"
