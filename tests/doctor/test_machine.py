"""A small disk, little memory, a processor without fast INT8 and places that do not answer, each planted."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import requests
from pypi_simple import PYPI_SIMPLE_ENDPOINT
from ruamel.yaml import YAML

from stages.core import layout, params
from stages.core.params.origins import WheelSource
from stages.doctor import machine, matrix, network
from stages.sources import index
from tests.doctor import faults
from tests.hub import Hub

pytestmark = pytest.mark.usefixtures("repository", "all_answer")
AVX2 = "flags : avx2 avx512f\n"


@pytest.fixture
def all_answer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> str:
    """A hub and an index that answer; gives an address where nobody does."""
    monkeypatch.setenv("PIP_INDEX_URL", f"{hub.url}/simple")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://user:secret@127.0.0.1:{unused.getsockname()[1]}"


def edit_recipes(**settings: object) -> None:
    """Change the default INT8 recipe."""
    found = YAML(typ="safe").load(Path("params.yaml"))
    found["quantize"]["recipes"]["int8"] |= settings
    YAML().dump(found, Path("params.yaml"))


def edit_sources(model: str, kinds: set[str]) -> None:
    """Leave only some sources of a model."""
    found = YAML(typ="safe").load(Path("params.yaml"))
    entry = found["models"][model]
    entry["sources"] = [source for source in entry["sources"] if source["kind"] in kinds]
    YAML().dump(found, Path("params.yaml"))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints of 1 GB each."""
    monkeypatch.setattr(machine, "_checkpoint_sizes", lambda subject: [1.0] * len(subject.models))


def test_what_suffices():
    assert faults.of(network.check) == []


@pytest.mark.usefixtures("large")
def test_a_disk_that_the_builds_do_not_fit_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5.9e9))
    monkeypatch.setattr(machine, "limit", lambda: 1e12)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1e12))
    found = faults.one(machine.check, "paraformer")
    assert (found.check, found.level, found.found) == ("disk", "blocks", "5.9 GB free")
    assert found.wanted == "6.0 GB more, of 6.0 GB for all"
    made = layout.ARTIFACTS / "m" / "model.onnx"
    made.parent.mkdir(parents=True)
    with made.open("wb") as f:
        f.truncate(10**8)  # a tenth of a GB is built already
    assert faults.of(machine.check, "paraformer") == []


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("has", "level"), [pytest.param(3.0, "blocks", id="for-none"), pytest.param(4.0, "warning", id="for-one")]
)
def test_memory_that_the_builds_do_not_fit_in(has: float, level: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "limit", lambda: has * 1e9)
    found = faults.one(machine.check, named="memory")
    assert (found.level, found.found.startswith(f"{has:.1f} GB, ")) == (level, True)
    assert (found.fix == "add memory") == (level == "blocks")
    assert found.wanted.startswith("3.2 GB for the largest model")


def test_a_container_has_less_memory_than_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    group = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "LIMITS", (group,))
    for text, wanted in (("max", psutil.virtual_memory().total), ("1000000", 1e6)):
        group.write_text(text)
        assert machine.limit() == wanted


def test_a_processor_without_fast_int8_costs_speed(processor):
    processor(AVX2)
    found = faults.one(machine.check, "paraformer", named="cpu")
    assert found.level == "warning"
    assert f"{matrix.load().int8_speedup.avx2}x where {matrix.load().int8_speedup.vnni}x" in found.consequence
    processor("flags : sse\n")
    assert "at an unknown speed" in faults.one(machine.check, "paraformer", named="cpu").consequence


def test_a_recipe_that_overflows_without_fast_int8(processor):
    processor(AVX2)
    edit_recipes(reduce_range=False)
    [_, found] = [f for f in faults.of(machine.check, "paraformer") if f.check == "cpu"]
    assert found.found.startswith("paraformer-cpu_int8, paraformer-cpu_pruned_int8: 8-bit weights")
    assert "overflow" in found.consequence
    processor("flags : avx2 avx512_vnni\n")
    assert [f for f in faults.of(machine.check, "paraformer") if f.check == "cpu"] == []


def test_a_proxy_that_is_in_the_way_is_named(all_answer: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://hub.example")
    monkeypatch.setenv("HTTP_PROXY", all_answer)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = faults.one(network.check, named="hub")
    proxy = all_answer.replace("user:secret", "***")
    assert found.found.startswith(f"http://hub.example through the proxy {proxy} could not be reached (ConnectionRef")


@pytest.mark.parametrize(
    ("status", "is_good"), [(401, False), (403, True), (404, True), (407, False), (501, True), (503, False)]
)
def test_an_answer_by_which_nothing_can_be_had_is_none(
    status: int,
    is_good: bool,  # noqa: FBT001
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(requests, "head", lambda *_, **__: SimpleNamespace(status_code=status))
    found = [f.found for f in faults.of(network.check)]
    assert found[:1] == ([] if is_good else [f"{hub.url} answers with status {status}"])


def test_a_certificate_of_a_company_s_own_is_the_system_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["-keyout", str(key), "-out", str(certificate), "-days", "1"]
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*new, *made, *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Hub() as secured:
        secured.socket = context.wrap_socket(secured.socket, server_side=True)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"https://localhost:{secured.server_port}")
        assert "CERTIFICATE_VERIFY_FAILED" in faults.one(network.check).found
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert faults.of(network.check) == []


def test_an_empty_address_of_the_index_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_INDEX_URL", "")  # as CI has a variable that is not set
    assert index.endpoint() == PYPI_SIMPLE_ENDPOINT


def test_a_hub_that_does_not_answer_is_a_warning_where_there_is_another_source(
    all_answer: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", all_answer)
    found = faults.one(network.check)
    assert (found.check, found.level) == ("hub", "warning")
    assert "ConnectionRefused" in found.found
    assert "secret" not in found.found
    assert faults.of(network.check, "paraformer") == []  # which asks the hub for nothing
    edit_sources("fsmn_vad", {"modelscope"})
    found = faults.one(network.check, named="fsmn_vad")
    assert (found.level, found.found, found.wanted) == ("blocks", "its checkpoint: not here", "an answer of the hub")


def test_an_index_that_does_not_answer_blocks_what_comes_from_there_alone(
    all_answer: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PIP_INDEX_URL", all_answer)
    assert faults.one(network.check, named="package index").level == "warning"
    found = faults.one(network.check, named="fsmn_vad")
    assert found.found == "its data set vad_mixtures: not here"
    assert re.fullmatch(r"copy fasr-\S+ and pocketsphinx-\S+ to \.cache/archives", found.fix)
    layout.corpus("vad_mixtures").mkdir(parents=True)
    assert [f.level for f in faults.of(network.check)] == ["warning"]
    edit_sources("fsmn_vad", {"wheel"})
    assert faults.one(network.check, named="fsmn_vad").level == "blocks"


def test_what_may_be_restored_does_not_block(all_answer: str, remote: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_INDEX_URL", all_answer)
    assert faults.one(network.check, named="fsmn_vad").level == "blocks"
    remote.mkdir()
    found = faults.one(network.check, named="fsmn_vad")
    assert (found.level, "unless DVC's cache or remote" in found.consequence) == ("warning", True)
    remote.rmdir()
    network.RUN_CACHE.mkdir(parents=True)
    assert faults.one(network.check, named="fsmn_vad").level == "warning"


def test_a_folder_that_lacks_a_pinned_file():
    Path("zoo/paraformer/tokens.json").unlink()
    found = faults.one(network.check)
    assert (found.check, found.level) == ("paraformer", "blocks")
    assert found.found == "its checkpoint, which is not whole in zoo/paraformer: not here"


def test_a_data_set_of_the_user_s_that_is_not_there():
    settings = YAML(typ="safe").load(Path("params.yaml"))
    settings["datasets"]["spoken_commands"] = {"kind": "manifest", "path": "data/mine"}
    YAML().dump(settings, Path("params.yaml"))
    assert {f.check: (f.level, f.fix) for f in faults.of(network.check)} == dict.fromkeys(
        ("paraformer", "paraformer_streaming"), ("blocks", "copy them to data/mine")
    )
    Path("data/mine").mkdir(parents=True)
    assert faults.of(network.check) == []


def test_what_is_here_is_asked_of_nobody(all_answer: str, monkeypatch: pytest.MonkeyPatch):
    for variable in ("MODELSCOPE_ENDPOINT", "PIP_INDEX_URL"):
        monkeypatch.setenv(variable, all_answer)
    layout.corpus("vad_mixtures").mkdir(parents=True)
    layout.checkpoint("fsmn_vad").mkdir(parents=True)
    assert faults.of(network.check) == []


def test_a_place_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(network, "SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert faults.one(network.check).check == "hub"


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """A folder as DVC's default remote, which is not there yet."""
    command = ["dvc", "remote", "add", "--quiet", "--default", "--force", "shared", str(tmp_path / "remote")]
    subprocess.run(command, check=True)
    return tmp_path / "remote"


def test_a_remote_that_is_not_there(remote: Path):
    found = faults.one(network.check)
    assert (found.check, found.level, f"nothing at {remote}" in found.found) == ("remote", "warning", True)
    remote.mkdir()
    assert faults.of(network.check) == []


def test_a_remote_whose_plugin_is_not_installed():
    Path(".dvc/config.local").write_text("[core]\n    remote = s\n['remote \"s\"']\n    url = s3://bucket/kiln\n")
    found = faults.one(network.check)
    assert (found.check, found.level, "s3" in found.found) == ("remote", "warning", True)
    assert found.fix == "python -m pip install dvc-s3"


def test_a_configuration_that_dvc_cannot_read():
    Path(".dvc/config.local").write_text("[core\n")
    assert faults.one(network.check).level == "blocks"


def test_an_archive_that_was_downloaded_needs_no_index(all_answer: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_INDEX_URL", all_answer)
    layout.corpus("vad_mixtures").mkdir(parents=True)
    edit_sources("fsmn_vad", {"wheel"})
    [wheel] = params.load().models["fsmn_vad"].sources
    assert isinstance(wheel, WheelSource)
    place = index.place(wheel.archive)
    place.parent.mkdir(parents=True)
    place.touch()
    assert faults.of(network.check) == []
