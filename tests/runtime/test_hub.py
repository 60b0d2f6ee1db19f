"""Without a network, a command does not wait for Hugging Face's hub."""

import os
import socket

import pytest

from command import PATIENCE, start_command
from infomax.runtime import hub
from infomax.runtime.doors import command_door
from infomax.runtime.hub import OFFLINE, hub_host, hub_or_cache, is_reachable, why_not_fetched

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
    assert why_not_fetched() == "127.0.0.1 cannot be reached, and the local cache does not have them"


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
        assert why_not_fetched()
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        with hub_or_cache():
            assert not why_not_fetched()
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
    assert capsys.readouterr().err == why_not_fetched() == ""


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


@pytest.mark.process
def test_an_encoder_of_timm_without_a_network_is_one_clear_line(tmp_path):
    environment = {"HF_ENDPOINT": CLOSED, "HF_HOME": str(tmp_path / "hub"), "https_proxy": "", "http_proxy": ""}
    process = start_command(tmp_path, "evaluate", "knn", "timm:test_resnet", "--data", "digits", **environment)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert err.splitlines()[-1] == (
        "infomax: the weights could not be fetched (127.0.0.1 cannot be reached, and the local cache does not have "
        "them); timm:test_resnet@FILE takes them from a file, which a machine with a network writes by python -c "
        "\"import timm, torch; torch.save(timm.create_model('test_resnet', pretrained=True).state_dict(), "
        "'weights.pth')\""
    )
    for word in ("Retry", "Traceback", "Warning", "HEAD"):
        assert word not in err
