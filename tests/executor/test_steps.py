"""How steps become commands, and what a container is told of this host's package settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slipway.compiler.facts import FileEntry
from slipway.compiler.nodes import LayerSpec
from slipway.dsl.declaration import (
    AddPython,
    AptInstall,
    DockerfileCommands,
    LocalSource,
    MicromambaInstall,
    PipInstall,
    RunCommands,
    RunFunction,
    Setting,
    Step,
    UvSync,
)
from slipway.dsl.errors import InvalidError
from slipway.executor.apt import Apt
from slipway.executor.apt import translate as translate_apt
from slipway.executor.images import ImageConfig, with_setting
from slipway.executor.indexes import HostSettings, Indexes, read_settings, translate
from slipway.executor.steps import Recipe, recipe

FILE = FileEntry(path="/.slipway/build/requirements-0.txt", mode=0o644, digest="sha256:" + "0" * 64)


def made(step: Step, *, runtime: str = "native", config: ImageConfig | None = None, **more: Any) -> Recipe:
    return recipe(LayerSpec(step=step, **more), runtime=runtime, config=config or ImageConfig())


def test_packages_are_installed_by_uv_into_the_environment_of_the_worker() -> None:
    step = PipInstall(packages=("numpy<2", "scipy"), index_url="https://a", extra_index_url="https://b", pre=True)
    (command,) = made(step).commands
    assert command[:3] == ("/.slipway/bin/uv", "pip", "install")
    assert command[4:8] == ("--python", "/venv/bin/python", "numpy<2", "scipy")
    assert command[8:] == ("--index-url", "https://a", "--extra-index-url", "https://b", "--prerelease=allow")


def test_what_only_pip_knows_is_left_to_pip() -> None:
    first, second = made(PipInstall(packages=("six",), extra_options="--use-pep517")).commands
    assert first == ("/venv/bin/python", "-m", "pip", "install", "--no-compile", "six", "--use-pep517")
    assert "compileall" in second
    (command,) = made(PipInstall(packages=("six",), extra_options="--use-pep517", method="uv_pip_install")).commands
    assert command[0] == "/.slipway/bin/uv"
    (command,) = made(PipInstall(packages=("six",), extra_options='--no-deps --config-setting "a=b c"')).commands
    assert command[-3:] == ("--no-deps", "--config-setting", "a=b c")


def test_options_that_cannot_be_read_are_named() -> None:
    with pytest.raises(InvalidError, match="extra_options"):
        made(PipInstall(packages=("six",), extra_options='"open'))


def test_requirements_files_are_named_where_they_will_be() -> None:
    source = LocalSource(local="/home/me/r.txt", remote=FILE.path)
    what = made(PipInstall(requirements=(source,)), files=(FILE,))
    assert what.commands[0][-2:] == ("-r", FILE.path)
    assert what.build_folder
    assert what.files == (FILE,)


def test_on_docker_the_images_own_python_is_found() -> None:
    (command,) = made(PipInstall(packages=("six",)), runtime="docker").commands
    assert command[:2] == ("/bin/sh", "-c")
    assert "command -v python3" in command[2]
    assert command[3:] == ("sh", "six")


def test_a_uv_project_is_synced_without_itself() -> None:
    step = UvSync(project=LocalSource(local="/p", remote="/.slipway/build/project"), groups=("web",), extras=("gpu",))
    ((_, _, script),) = made(step).commands
    assert "sync --inexact --no-install-workspace --compile-bytecode --frozen --group web --extra gpu" in script
    assert "UV_PROJECT_ENVIRONMENT=/venv" in script


def test_system_packages_come_in_the_order_written_and_alone() -> None:
    what = made(AptInstall(packages=("b", "a")))
    assert what.commands[-1][-4:] == ("install", "-y", "b", "a")
    assert what.alone == "apt"
    assert dict(what.env)["DEBIAN_FRONTEND"] == "noninteractive"


def test_commands_run_in_the_shell_and_folder_of_the_image() -> None:
    config = ImageConfig(shell=("/bin/bash", "-euc"), workdir="/srv")
    what = made(RunCommands(commands=("a", "b")), config=config)
    assert what.commands == (("/bin/bash", "-euc", "a"), ("/bin/bash", "-euc", "b"))
    assert what.cwd == "/srv"


def test_a_function_gets_its_call_by_stdin_and_its_timeout() -> None:
    what = made(RunFunction(module="app", qualname="fetch", source="", payload="cA==", timeout_ms=5000))
    assert what.stdin == b'{"module": "app", "qualname": "fetch", "payload": "cA=="}'
    assert (what.worker, what.timeout_ms) == (True, 5000)


def test_on_docker_commands_run_as_the_images_user_and_packages_as_root() -> None:
    config = ImageConfig(shell=("/bin/bash", "-c"))
    what = made(RunCommands(commands=("a",)), runtime="docker", config=config)
    assert what.as_user and what.cwd is None
    assert what.commands[0][:2] == ("/bin/sh", "-c") and what.commands[0][-3:] == ("/bin/bash", "-c", "a")
    what = made(RunFunction(module="app", qualname="f", source=""), runtime="docker")
    assert what.as_user and "command -v python3" in what.commands[0][2]
    for step in (PipInstall(packages=("six",)), AptInstall(packages=("git",)), AddPython(version="3.12")):
        assert not made(step, runtime="docker").as_user


def test_on_docker_what_uv_cannot_do_there_is_pips() -> None:
    (command,) = made(PipInstall(packages=("six",), pre=True), runtime="docker").commands
    script, *arguments = command[2:]
    assert arguments == ["sh", "six", "--prerelease=allow"]
    assert "-m pip install" in script and "six --pre" in script and "glibc" in script


def test_apt_on_docker_is_told_how_this_host_reaches_its_sources() -> None:
    assert made(AptInstall(packages=("git",)), runtime="docker").apt
    assert not made(AptInstall(packages=("git",))).apt


def test_conda_packages_and_added_pythons() -> None:
    spec = LocalSource(local="/home/me/e.yml", remote="/.slipway/build/environment.yml")
    step = MicromambaInstall(packages=("xz", "pymc>5"), spec_file=spec, channels=("conda-forge", "b c"))
    what = made(step, runtime="docker", files=(FILE,))
    assert what.commands[0][4:] == ("xz", "pymc>5")
    assert (
        "--name base --channel conda-forge --channel 'b c' --file /.slipway/build/environment.yml"
        in (what.commands[0][2])
    )
    step_ = AddPython(version="3.12.4", resolved="cpython-3.12.4-linux-x86_64-gnu")
    what = made(step_, runtime="docker")
    assert what.python is step_ and what.worker
    assert "/usr/local/bin/python3.12 -B" in what.commands[0][2]


def test_what_cannot_be_built_here_is_said() -> None:
    with pytest.raises(InvalidError, match="dockerfile_commands"):
        made(DockerfileCommands(commands=("RUN x",)))


@pytest.mark.parametrize(
    ("setting", "config"),
    [
        (Setting(what="workdir", values=("/srv",)), ImageConfig(workdir="/srv")),
        (Setting(what="workdir", values=("sub",)), ImageConfig(workdir="/root/sub")),
        (Setting(what="entrypoint", values=("a", "b")), ImageConfig(entrypoint=("a", "b"))),
        (Setting(what="shell", values=("/bin/bash", "-c")), ImageConfig(shell=("/bin/bash", "-c"))),
        (Setting(what="cmd", values=("sleep",)), ImageConfig(cmd=("sleep",))),
    ],
)
def test_settings(setting: Setting, config: ImageConfig) -> None:
    assert with_setting(ImageConfig(), setting) == config


# --- this host's package settings ---------------------------------------------------------------------


def translated(
    pip: dict[str, str] | None = None,
    environ: dict[str, str] | None = None,
    *,
    uv: dict[str, Any] | None = None,
    netrc: str | None = None,
    there: tuple[str, ...] = (),
) -> Indexes:
    settings = HostSettings(
        pip=pip or {}, uv=uv or {}, uv_file="/home/me/uv.toml" if uv else None, netrc=netrc, environ=environ or {}
    )
    return translate(settings, exists=lambda path: path in there)


def test_pips_indexes_are_told_to_uv_too() -> None:
    env = dict(translated({"index-url": "https://a/simple", "extra-index-url": "https://b\nhttps://c"}).env)
    assert env["UV_DEFAULT_INDEX"] == env["PIP_INDEX_URL"] == "https://a/simple"
    assert env["UV_INDEX"] == env["PIP_EXTRA_INDEX_URL"] == "https://b https://c"
    assert env["UV_INDEX_STRATEGY"] == "unsafe-best-match"


def test_what_was_said_to_uv_itself_wins() -> None:
    env = dict(translated({"index-url": "https://a"}, {"UV_DEFAULT_INDEX": "https://u", "UV_CACHE_DIR": "/mine"}).env)
    assert env["UV_DEFAULT_INDEX"] == "https://u"
    assert "UV_CACHE_DIR" not in env
    found = translated({"index-url": "https://a"}, uv={"index-url": "https://u"}, there=("/home/me/uv.toml",))
    env = dict(found.env)
    assert "UV_DEFAULT_INDEX" not in env
    assert env["UV_CONFIG_FILE"] == "/.slipway/uv.toml"
    assert "UV_NO_CONFIG" not in env


def test_local_places_are_mounted_where_they_are() -> None:
    found = translated(
        {"find-links": "/srv/wheels https://w", "extra-index-url": "file:///srv/py%20pi/simple"},
        there=("/srv/wheels", "/srv/py pi"),
    )
    assert [(mount.source, mount.target, mount.read_only) for mount in found.mounts] == [
        ("/srv/py pi", "/srv/py pi", True),  # with the files beside the index
        ("/srv/wheels", "/srv/wheels", True),
    ]
    assert dict(found.env)["UV_FIND_LINKS"] == "/srv/wheels,https://w"


def test_certificates_and_netrc_are_mounted_under_names_of_ours() -> None:
    found = translated({"cert": "/etc/ssl/company.pem"}, netrc="/home/me/.netrc", there=("/etc/ssl/company.pem",))
    assert {mount.target: mount.source for mount in found.mounts} == {
        "/.slipway/ca.pem": "/etc/ssl/company.pem",
        "/.slipway/netrc": "/home/me/.netrc",
    }
    env = dict(found.env)
    assert env["SSL_CERT_FILE"] == env["REQUESTS_CA_BUNDLE"] == env["PIP_CERT"] == "/.slipway/ca.pem"
    assert env["NETRC"] == "/.slipway/netrc"


def test_proxies_are_told_in_both_spellings() -> None:
    env = dict(translated({"proxy": "http://p:1"}, {"https_proxy": "http://q:2", "NO_PROXY": "localhost"}).env)
    assert env["HTTP_PROXY"] == env["http_proxy"] == "http://p:1"
    assert env["HTTPS_PROXY"] == env["https_proxy"] == "http://q:2"
    assert env["NO_PROXY"] == "localhost"


def test_passwords_in_urls_are_to_be_masked_and_not_shown() -> None:
    found = translated({"index-url": "https://me:s3cr%21t@host/simple"}, {"UV_INDEX_A_PASSWORD": "otherpass"})
    assert {"s3cr!t", "s3cr%21t", "otherpass"} == set(found.secrets)
    assert "s3cr" not in repr(found)


def test_trusted_hosts_no_index_and_timeouts() -> None:
    env = dict(translated({"trusted-host": "a\nb", "no-index": "true", "timeout": "30"}).env)
    assert (env["UV_INSECURE_HOST"], env["UV_HTTP_TIMEOUT"]) == ("a b", "30")
    assert (env["UV_DEFAULT_INDEX"], env["PIP_NO_INDEX"]) == ("file:///.slipway/no-index", "true")
    assert env["PIP_DEFAULT_TIMEOUT"] == "30"


def test_pips_files_are_read_in_pips_order(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "root"
    for path, text in (
        (root / "etc/pip.conf", "[global]\nindex-url = https://global\ntimeout = 1\nfind-links = /a\n"),
        (home / ".pip/pip.conf", "[global]\nindex-url = https://old\n"),
        (home / ".config/pip/pip.conf", "[install]\nindex_url = https://user\n[list]\nformat = x\n"),
        (tmp_path / "own.conf", "[global]\ntimeout = 3\n"),
        (tmp_path / "broken/pip.conf", "not an ini file\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    environ = {"HOME": str(home), "PIP_CONFIG_FILE": str(tmp_path / "own.conf"), "PIP_FIND_LINKS": "/env"}
    found = read_settings(environ, prefix=str(tmp_path / "broken"), root=root)
    assert found.pip["index-url"] == "https://user"
    assert found.pip["timeout"] == "3"
    assert found.pip["find-links"] == "/env"
    assert "format" not in found.pip
    environ["PIP_CONFIG_FILE"] = "/dev/null"
    assert "index-url" not in read_settings(environ, prefix="/nonexistent", root=root).pip


def test_uvs_file_and_netrc_are_found(tmp_path: Path) -> None:
    (tmp_path / ".config/uv").mkdir(parents=True)
    (tmp_path / ".config/uv/uv.toml").write_text('index-url = "https://u"\n')
    (tmp_path / ".netrc").write_text("")
    environ = {"HOME": str(tmp_path)}
    found = read_settings(environ, prefix="/nonexistent", root=tmp_path)
    assert (found.uv_file, found.uv["index-url"]) == (str(tmp_path / ".config/uv/uv.toml"), "https://u")
    assert found.netrc == str(tmp_path / ".netrc")
    assert read_settings({**environ, "UV_NO_CONFIG": "1"}, prefix="/nonexistent", root=tmp_path).uv_file is None


# --- this host's apt settings -------------------------------------------------------------------------

DUMP = """Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://me:s3cr%21t@cache:3142";
Acquire::http::Proxy::internal.example "DIRECT";
Acquire::https::CaInfo "/etc/ssl/company.pem";
Acquire::https::SslKey "/gone.key";
Acquire::http::User-Agent "x";
Acquire::Retries "3";
Dir::Etc "etc/apt";
"""


def test_apts_proxies_and_certificates_go_along() -> None:
    apt = translate_apt(DUMP, Indexes(), exists=lambda path: path != "/gone.key")
    assert apt.text.splitlines() == [
        'Acquire::http::Proxy "http://me:s3cr%21t@cache:3142";',
        'Acquire::http::Proxy::internal.example "DIRECT";',
        'Acquire::https::CaInfo "/.slipway/apt-0";',
    ]
    assert [(mount.source, mount.target) for mount in apt.mounts] == [("/etc/ssl/company.pem", "/.slipway/apt-0")]
    assert set(apt.secrets) == {"s3cr%21t", "s3cr!t"}
    assert "s3cr" not in repr(apt)


def test_apt_trusts_what_the_host_trusts() -> None:
    indexes = translated(environ={"SSL_CERT_FILE": "/ca.pem"}, there=("/ca.pem",))
    assert translate_apt("", indexes, exists=lambda path: True).text == ('Acquire::https::CaInfo "/.slipway/ca.pem";\n')
    assert translate_apt("", Indexes(), exists=lambda path: True) == Apt()
