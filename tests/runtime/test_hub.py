"""Without a network, a command does not wait for Hugging Face's hub."""

import os
import socket
from email.message import Message
from urllib.error import HTTPError, URLError

import pytest

from command import PATIENCE, start_command
from infomax.runtime import hub
from infomax.runtime.doors import command_door
from infomax.runtime.hub import (
    OFFLINE,
    hub_host,
    hub_or_cache,
    is_reachable,
    is_unknown,
    is_unreached,
    was_reachable,
    why_unreached,
)

CLOSED = "http://127.0.0.1:9"  # the port of discard, which nobody serves any more


@pytest.fixture
def offline(monkeypatch):
    """A hub that cannot be reached, of which no library knows yet."""
    for name in (*hub.USERS_OWN, "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(hub.sys.modules, "huggingface_hub", raising=False)
    monkeypatch.setattr(hub, "_seen", {})
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)


def test_a_command_takes_the_cache_alone_while_it_imports(offline, capsys):
    with command_door(), hub_or_cache():
        assert os.environ[OFFLINE] == "1"
    assert OFFLINE not in os.environ
    assert capsys.readouterr().err == "infomax: 127.0.0.1 cannot be reached; the local cache is used alone\n"
    assert why_unreached() == "127.0.0.1 cannot be reached, and the local cache does not have it"


def test_a_program_asks_the_hub_no_more_within_the_block_alone(offline, monkeypatch, tmp_path, capsys):
    """Without this, huggingface_hub asks six times, for half a minute."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, OFFLINE, False)  # a command of another test may have set it
    for _ in range(2):  # the second time, nobody waits for the host again
        with hub_or_cache():
            assert OFFLINE not in os.environ
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import LocalEntryNotFoundError

            assert constants.is_offline_mode()
            with hub_or_cache(), pytest.raises(LocalEntryNotFoundError):
                hf_hub_download("a/b", "model.safetensors", cache_dir=tmp_path)
            assert constants.is_offline_mode()
        assert not constants.is_offline_mode()
    assert capsys.readouterr().err == "infomax: 127.0.0.1 cannot be reached; the local cache is used alone\n"


def test_a_host_that_is_back_after_a_minute_is_asked_again(offline, monkeypatch, capsys):
    monkeypatch.setattr(hub, "VALID", 0.0)
    with hub_or_cache():
        assert not was_reachable()
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        with hub_or_cache():
            assert was_reachable()
    assert capsys.readouterr().err.count("cannot be reached") == 1


def test_a_users_own_setting_is_not_changed(offline, monkeypatch, capsys):
    with command_door(), hub_or_cache(needed=False):
        assert OFFLINE not in os.environ
    monkeypatch.setenv(OFFLINE, "0")
    with command_door(), hub_or_cache():
        assert os.environ[OFFLINE] == "0"
    monkeypatch.delenv(OFFLINE)
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    with command_door(), hub_or_cache():
        assert OFFLINE not in os.environ
    assert capsys.readouterr().err == ""
    assert was_reachable()


def test_a_host_that_answers_is_reachable(offline, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        assert hub_host() == ("127.0.0.1", port)
        assert is_reachable("127.0.0.1", port)
        with command_door(), hub_or_cache():
            assert OFFLINE not in os.environ
    monkeypatch.delenv("HF_ENDPOINT")
    assert hub_host() == ("huggingface.co", 443)


def test_a_switch_of_the_user_is_named(offline, monkeypatch):
    monkeypatch.setenv(OFFLINE, "1")
    assert why_unreached() == "HF_HUB_OFFLINE is set, and the local cache does not have it"


def test_errors_of_the_hub_are_told_apart_also_if_a_library_wraps_them():
    import httpx
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    response = httpx.Response(404, request=httpx.Request("GET", "http://hub/nothing/here"))

    def kinds(error):
        wrapped = OSError("nothing/here is not a local folder")
        wrapped.__cause__ = error
        return [(is_unreached(x), is_unknown(x)) for x in (error, wrapped)]

    assert kinds(LocalEntryNotFoundError("An error happened while trying to locate the file")) == [(True, False)] * 2
    assert kinds(URLError("Name or service not known")) == [(True, False)] * 2
    assert kinds(RepositoryNotFoundError("404", response=response)) == [(False, True)] * 2
    with HTTPError("http://x", 404, "gone", Message(), None) as gone:
        assert kinds(gone) == [(False, False)] * 2
    assert kinds(ValueError("the shapes differ")) == [(False, False)] * 2


@pytest.mark.process
def test_an_encoder_of_timm_without_a_network_is_one_clear_line(tmp_path):
    environment = {"HF_ENDPOINT": CLOSED, "HF_HOME": str(tmp_path / "hub"), "https_proxy": "", "http_proxy": ""}
    process = start_command(tmp_path, "evaluate", "knn", "timm:test_resnet", "--data", "digits", **environment)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert err.splitlines()[-1] == (
        'infomax: timm:test_resnet: fetch it on a machine with a network, by python -c "import timm, torch; '
        "torch.save(timm.create_model('test_resnet', pretrained=True).state_dict(), 'weights.pth')\", and name "
        "timm:test_resnet@weights.pth here: 127.0.0.1 cannot be reached, and the local cache does not have it"
    )
    for word in ("Retry", "Traceback", "Warning", "HEAD"):
        assert word not in err
