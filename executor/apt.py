"""How this host's apt reaches its sources, for apt in build steps: proxies, certificates. Never in a layer or a key."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from urllib.parse import unquote

from attrs import field, frozen

from .indexes import CERTIFICATES, Indexes
from .ports import Mount
from .steps import OURS

SECONDS = 10.0
LINE = re.compile(r'Acquire::(?P<name>https?(?:::[^" ]+)?) "(?P<value>[^"]*)";')
SAID = re.compile(
    r"(Proxy|CaInfo|CaPath|SslCert|SslKey|Verify-Peer|Verify-Host|Timeout|(Proxy|Verify-Peer|Verify-Host|CaInfo)::.+)"
)
FILES = ("CaInfo", "CaPath", "SslCert", "SslKey")


@frozen(kw_only=True)
class Apt:
    """A configuration file's text ("": apt needs none), the files that it names, and what must not show in a log."""

    text: str = field(default="", repr=False)
    mounts: tuple[Mount, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)


def read_apt(indexes: Indexes) -> Apt:
    """This host's settings. Blocks, shortly."""
    program = shutil.which("apt-config")
    dump = ""
    if program is not None:
        try:
            done = subprocess.run((program, "dump"), capture_output=True, timeout=SECONDS, check=True, text=True)
            dump = done.stdout
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
            pass  # an apt that is broken here is none that anybody gets packages by
    return translate(dump, indexes, exists=os.path.exists)


def translate(dump: str, indexes: Indexes, *, exists: Callable[[str], bool]) -> Apt:
    """What `apt-config dump` said, for a container: proxies and certificates.

    >>> said = 'Acquire::http::Proxy "http://me:pass@cache:3142";\\nAcquire::Retries "3";'
    >>> made = translate(said, Indexes(), exists=lambda path: True)
    >>> made.text, made.secrets
    ('Acquire::http::Proxy "http://me:pass@cache:3142";\\n', ('pass',))
    """
    lines: list[str] = []
    mounts: list[Mount] = []
    secrets: list[str] = []
    for found in LINE.finditer(dump):
        name, value = found["name"], found["value"]
        last = name.partition("::")[2]
        if not value or not SAID.fullmatch(last):
            continue
        if last.partition("::")[0] in FILES:
            if not exists(value):
                continue
            target = f"{OURS}/apt-{len(mounts)}"
            mounts.append(Mount(source=value, target=target, read_only=True))
            value = target
        password = re.match(r"[a-z+]+://[^/@\s:]*:([^/@\s]+)@", value)
        secrets += [password[1], unquote(password[1])] if password else []
        lines.append(f'Acquire::{name} "{value}";\n')
    has_certificates = any(mount.target == CERTIFICATES for mount in indexes.mounts)
    if has_certificates and not any("::CaInfo " in line for line in lines):
        lines.append(f'Acquire::https::CaInfo "{CERTIFICATES}";\n')
    return Apt(text="".join(lines), mounts=tuple(mounts), secrets=tuple(dict.fromkeys(secrets)))
