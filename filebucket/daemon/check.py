"""Find what is wrong or risky in a configuration and in the files that it names.

*Wrong* keeps the daemon from starting, or from doing what the file says; *risky* is
allowed, but seldom meant. A running daemon is not disturbed: no lock is taken, nothing
is removed, and no port is opened; a file is created in the home for a moment, to test
its filesystem. If root runs it, the home and the hooks are checked with the rights of
the home's owner.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any

from attrs import define, field, frozen
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.x509 import Certificate

from filebucket import __version__
from filebucket.base.errors import ConfigError, OperatorError
from filebucket.base.fs import directory, free_bytes, total_bytes
from filebucket.base.owner import (
    as_owner_of,
    become_owner_of,
    giving,
    opened_as_owner_of,
    user_name,
)
from filebucket.base.text import counted, printable
from filebucket.catalogue.connection import NOT_CREATED
from filebucket.catalogue.database import CatalogueError
from filebucket.catalogue.view import View
from filebucket.config.certificate import name_of
from filebucket.config.config import Config, start_command
from filebucket.config.endpoint import Endpoint
from filebucket.config.load import parse, read_text
from filebucket.daemon.applied import Difference, identity, shared_settings
from filebucket.daemon.certificates import chain_of, read_certificates, read_roots
from filebucket.daemon.problems import Found, find_daemon, not_allowed
from filebucket.hooks.interfaces import EVENTS
from filebucket.hooks.scripts import ScriptHooks
from filebucket.http.listen import listeners
from filebucket.model.bucket import Bucket
from filebucket.model.client import NOBODY, IPNetwork, Networks
from filebucket.model.names import PRIVATE
from filebucket.model.node import Node, NodeReport, differing
from filebucket.model.objects import S3
from filebucket.model.problem import SOON, ending_token
from filebucket.model.registry import BucketIndex
from filebucket.store import aside
from filebucket.store.choose import load_modules
from filebucket.store.home import unusable
from filebucket.store.seal import SEALED_WITHIN, reason_of, sealing

SHORT_HOLD = timedelta(days=1)
NO_DIFFERENCE = Difference()

SEALED_SAMPLE = 1000
"""Files of a bucket whose seal is checked."""

TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
"""The certificate authorities that most clients trust. If this machine has no such
file, none are known."""

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))

_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
"""The curves that TLS 1.3 allows in certificates (RFC 8446, 4.2.3)."""


@frozen
class Concern:
    """Something wrong or risky.

    :param place: a file, a place in the configuration, or a bucket
    :param text: the description, in one line
    :param wrong: True if it is wrong, False if it is risky
    """

    place: str = field(converter=printable)
    text: str = field(converter=printable)
    wrong: bool

    @property
    def level(self) -> str:
        """``wrong`` or ``risky``."""
        return "wrong" if self.wrong else "risky"


def _wrong(place: str, text: str) -> Concern:
    return Concern(place, text, wrong=True)


def _risky(place: str, text: str) -> Concern:
    return Concern(place, text, wrong=False)


@frozen
class Validity:
    """How long a certificate is valid.

    :param place: the listener that presents it, as a place in the configuration
    :param name: its subject
    :param ends: when it expires, in seconds since the epoch
    """

    place: str
    name: str = field(converter=printable)
    ends: float


@frozen
class Report:
    """The results of a check.

    :param config: the configuration, if it can be used
    :param tier: how the home's filesystem publishes, if that could be tested
    :param hooks: the hooks that exist
    :param process: the pid of the daemon that uses the home
    :param certificates: those of the listeners, with the issuers that they present
    :param difference: changes that the daemon has not applied
    """

    concerns: tuple[Concern, ...]
    config: Config | None = None
    tier: str | None = None
    hooks: tuple[str, ...] = ()
    process: int | None = None
    certificates: tuple[Validity, ...] = ()
    difference: Difference = NO_DIFFERENCE

    @property
    def wrong(self) -> int:
        """Number of wrong things."""
        return sum(each.wrong for each in self.concerns)

    @property
    def risky(self) -> int:
        """Number of risky things."""
        return len(self.concerns) - self.wrong


def check(
    path: str,
    reactor: Any,
    environ: Mapping[str, str],
    now: float,
    daemon: bool = True,
) -> Report:
    """Check everything.

    :param path: the configuration
    :param reactor: what the daemon would listen with; nothing is opened
    :param environ: the environment that hooks inherit from
    :param now: seconds since the epoch
    :param daemon: whether a daemon has to run
    """
    try:
        text = read_text(path)
        config = parse(text, path)
    except ConfigError as error:
        return Report(tuple(_wrong(path, each) for each in error.mistakes))
    made = _Examination(path, text, config, reactor, environ, now)
    return Report(
        (
            *made.file(),
            *made.buckets(),
            *made.home(),
            *made.store(),
            *made.catalogue(),
            *(made.daemon() if daemon else []),
            *made.hooks(),
            *made.endpoints(),
        ),
        config,
        made.tier,
        made.scripts,
        made.found.process if made.found else None,
        tuple(made.certificates),
        made.difference,
    )


@define
class _Examination:
    """One check; it collects concerns, and facts for the report."""

    path: str
    text: str
    config: Config
    reactor: Any
    environ: Mapping[str, str]
    now: float
    tier: str | None = None
    scripts: tuple[str, ...] = ()
    found: Found | None = None
    difference: Difference = NO_DIFFERENCE
    certificates: list[Validity] = field(factory=list)

    def file(self) -> Iterator[Concern]:
        """Permissions of the configuration."""
        mode = os.stat(self.path).st_mode
        if mode & stat.S_IROTH and _in_clear(json.loads(self.text)):
            text = "contains clear-text tokens and is readable by all users"
            yield _risky(self.path, f"{text}: {_chmod('o-r', self.path)}")
        place = self.config.catalogue
        if mode & stat.S_IROTH and place is not None and place.has_password:
            text = "contains the database's password and is readable by all users"
            yield _risky(self.path, f"{text}: {_chmod('o-r', self.path)}")
        yield from _writable(self.path, mode)
        folder = os.path.dirname(os.path.abspath(self.path))
        mode = os.stat(folder).st_mode
        if not mode & stat.S_ISVTX:
            yield from _writable(folder, mode)

    def buckets(self) -> Iterator[Concern]:
        """Which buckets are open to all, or to no client."""
        if not self.config.buckets:
            yield _risky(self.path, "no buckets are configured: every push gets 403")
        for place in self.config.believes_anybody():
            text = "ANY CLIENT CAN FORGE ITS ADDRESS: trusted_proxies is not set"
            yield _risky(place, text)
        for label in self.config.exposed_examples(BucketIndex(self.config.buckets)):
            text = "ANYBODY CAN PUSH: its token is an example from the documentation"
            yield _risky(_place(label), text)
        for bucket in self.config.buckets:
            if ending := ending_token(bucket, self.now):
                yield _risky(_place(bucket.label), ending.text)
            yield from self._reach(bucket)
            if bucket.keep is not None and bucket.hold < SHORT_HOLD.total_seconds():
                text = (
                    "hold is under 1 day: an attacker who has the token can get all but"
                )
                text += " the latest files pruned before you notice"
                yield _risky(_place(bucket.label), text)

    def _reach(self, bucket: Bucket) -> Iterator[Concern]:
        allowed = bucket.allow_from
        # A proxy runs on this machine, its clients do not.
        if (
            allowed is None
            or self.config.trusted_proxies
            or any(each.proxied for each in self.config.listen)
        ):
            return
        by_ip = any(
            each.version == it.version and each.overlaps(it)
            for endpoint in self.config.listen
            for it in _clients_of(endpoint)
            for each in allowed.networks
        )
        unix = any(map(_is_local, self.config.listen))
        if not by_ip and not (allowed.local and unix):
            text = "no client can push: no listener is reachable from allow_from"
            yield _risky(_place(bucket.label), text)

    def home(self) -> Iterator[Concern]:
        """The storage folder and its filesystem."""
        there: str = self.config.home
        while not os.path.lexists(there):
            there = os.path.dirname(there)
        if not os.path.isdir(there):
            yield _wrong(there, "is not a folder")
            return
        with as_owner_of(there, PRIVATE):
            # As a list: no other code may run with these rights.
            concerns = list(self._rights(there))
        yield from concerns
        found = os.statvfs(there)
        least = self.config.min_free_space.of(total_bytes(found))
        if free_bytes(found) < least:
            text = "has less free space than min_free_space: every push gets 507"
            yield _wrong(there, text)

    def catalogue(self) -> Iterator[Concern]:
        """Whether the catalogue's database answers. A daemon starts without it."""
        place = self.config.catalogue
        if place is None or not os.path.isdir(self.config.home):
            return
        try:
            with (
                as_owner_of(self.config.home, PRIVATE),
                closing(View.open(place, create=False)) as view,
            ):
                nodes = view.nodes(self.now)
        except CatalogueError as error:
            if str(error) != NOT_CREATED:
                yield _wrong("$.catalogue", str(error))
            return
        yield from self._nodes(nodes)

    def _nodes(self, nodes: Sequence[Node]) -> Iterator[Concern]:
        """How the other daemons that share the catalogue differ from this file."""
        settings = shared_settings(self.config, self.config.buckets)
        own = NodeReport(__version__, settings)
        for each in nodes:
            if each.name == self.config.node or not each.is_alive(self.now):
                continue
            place = f"daemon {each.name}"
            if keys := differing(each.report, own):
                yield _risky(place, f"has other settings: {', '.join(keys)}")
            if each.report.version != own.version:
                version = each.report.version
                text = f"runs file-bucket {version}, and this is {own.version}"
                yield _risky(place, text)

    def _rights(self, there: str) -> Iterator[Concern]:
        """What the daemon's user may do in ``there``, the existing part of the home's
        path.
        """
        home = self.config.home
        if not os.access(there, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            yield _wrong(there, f"is not writable by {_user()}")
        elif there == home:
            yield from self._own_home()
        else:
            self.found = Found()
        if not os.access(self.path, os.R_OK, effective_ids=True):
            text = (
                f"is not readable by {_user()}, the owner of {home}: reload will fail"
            )
            yield _risky(self.path, text)
        protects = self.config.seal is not None or any(
            bucket.held for bucket in self.config.buckets
        )
        if protects and os.geteuid() != 0 and _may_change(self.path):
            text = f"can be changed by {_user()}, the owner of {home}: an attacker who"
            text += " takes over the daemon can end all holds and the sealing"
            yield _risky(self.path, text)

    def _own_home(self) -> Iterator[Concern]:
        """A home that exists."""
        home = self.config.home
        if os.stat(home).st_mode & stat.S_IRWXO:
            yield _risky(home, f"is accessible to all users: {_chmod('o=', home)}")
        try:
            self.found = find_daemon(home)
        except OSError as error:
            why = f"cannot tell which daemon uses it: {not_allowed(error, home)}"
            yield _risky(home, why)
        yield from self._folders()
        found = self.found
        if found and found.status and not found.reads(self.path):
            other = f"process {found.process}, configuration {found.status.config}"
            yield _wrong(home, f"is used by another daemon ({other})")
        yield from self._sealed()
        # Nothing can be removed from a home that is sealed.
        private = os.path.join(home, PRIVATE)
        try:
            with (
                tempfile.TemporaryDirectory(
                    dir=private if os.path.isdir(private) else home,
                    prefix=".filebucket-",
                ) as folder,
                directory(folder) as fd,
            ):
                self.tier = aside.find_tier(home, fd).tier
        except ConfigError as error:
            yield _wrong(home, error.mistakes[0])
        except OSError as error:
            yield _wrong(home, unusable(home, error))

    def _sealed(self) -> Iterator[Concern]:
        """Whether files are sealed as configured; a sample of each bucket."""
        if self.config.seal is None or self.config.store is not None:
            return
        before = self.now - self.config.seal - SEALED_WITHIN
        late = "run filebucket seal as root, and check its timer"
        with sealing(self.config.home) as home:
            try:
                if not home.is_protected():
                    yield _wrong(self.config.home, f"is not sealed: {late}")
            except OSError as error:
                yield _wrong(self.config.home, _unsealable(error))
                return
            for bucket in self.config.buckets:
                if bucket.overwrite:
                    continue
                place = _place(bucket.label)
                try:
                    count = home.unsealed(bucket.directory, before, SEALED_SAMPLE)
                except FileNotFoundError:
                    # Before the first push there is no folder.
                    continue
                except OSError as error:
                    yield _wrong(place, _unsealable(error))
                    continue
                if count:
                    files = counted(count, "file")
                    yield _wrong(place, f"at least {files} not sealed: {late}")

    def store(self) -> Iterator[Concern]:
        """The object store, if the configuration has one."""
        store = self.config.store
        if store is None:
            return
        if self.config.seal is not None:
            text = "has no effect on files in an object store: protect them with its"
            yield _wrong("$.seal", f"{text} object lock")
        for path in (store.credentials, store.delete_credentials):
            with suppress(OSError):
                if path is not None and os.stat(path).st_mode & stat.S_IRWXO:
                    text = f"is accessible to all users: {_chmod('o=', path)}"
                    yield _risky(path, text)
        yield from self._deletes(store)
        known = store.credentials or self.environ.get("AWS_ACCESS_KEY_ID")
        if not known and "CREDENTIALS_DIRECTORY" not in self.environ:
            text = "the object store cannot be checked without the daemon's credentials"
            yield _risky("$.store.s3", text)
            return
        try:
            text, _ = opened_as_owner_of(
                self.config.home, PRIVATE, partial(_try_store, self.config, store)
            )
        except OperatorError as error:
            yield _wrong("$.store.s3", str(error))
        else:
            for line in text.splitlines():
                yield _risky("$.store.s3", line)

    def _deletes(self, store: S3) -> Iterator[Concern]:
        """The credentials that may delete, which the daemon must not have."""
        path = store.delete_credentials
        if path is None:
            text = "without delete_credentials, prune and sweep delete nothing"
            if any(bucket.keep is not None for bucket in self.config.buckets):
                yield _risky("$.store.s3", text)
            return
        with as_owner_of(self.config.home, PRIVATE):
            theirs = os.access(path, os.R_OK, effective_ids=True)
            user = _user()
        if theirs and user != "root":
            text = f"is readable by {user}, the owner of {self.config.home}: an"
            text += " attacker who takes over the daemon can delete all files;"
            yield _risky(path, f"{text} chown root {shlex.quote(path)}")
        if path == store.credentials:
            text = "is the same file as credentials: the daemon can delete all files"
            yield _risky("$.store.s3.delete_credentials", text)

    def _folders(self) -> Iterator[Concern]:
        """Buckets whose folder the daemon cannot use, or that the data of a resumable
        upload cannot be linked to.
        """
        home = self.config.home
        if self.config.store is not None:
            return
        device = os.stat(home).st_dev
        for bucket in self.config.buckets:
            folder = os.path.join(home, bucket.directory)
            with suppress(OSError):
                found = os.stat(folder)
                may = os.access(folder, os.W_OK | os.X_OK, effective_ids=True)
                if not (may or bucket.retired):
                    text = f"its folder is not writable by {_user()}: pushes get 401"
                    text += _remedy(home, folder, found.st_uid)
                    yield _wrong(_place(bucket.label), text)
                if self.config.unfinished and found.st_dev != device:
                    text = "its folder is on another filesystem than the home:"
                    text += " resumable uploads get 501"
                    yield _risky(_place(bucket.label), text)

    def daemon(self) -> Iterator[Concern]:
        """Whether a daemon runs, and has applied the configuration."""
        found = self.found
        if found is None:
            return
        if found.process is None:
            # Not wrong: an operator runs check before the first start, too.
            text = "no daemon runs, so no push arrives; start it: "
            home = self.config.home
            yield _risky(home, text + start_command(self.path, home))
        elif found.reads(self.path):
            self.difference = found.difference(self.config, identity(self.text))
            if due := found.due(self.difference):
                yield _risky(self.path, due)

    def hooks(self) -> Iterator[Concern]:
        """The operator's scripts."""
        folder = self.config.hooks
        if not os.path.isdir(folder):
            yield _risky(folder, "is not a folder: no hooks will run")
            return
        scripts = ScriptHooks(self.reactor, folder, self.environ, 1, 1)
        try:
            with as_owner_of(self.config.home, PRIVATE):
                self.scripts = tuple(scripts.check())
        except ConfigError as error:
            for mistake in error.mistakes:
                yield _wrong(folder, mistake)
        for event in EVENTS:
            script = os.path.join(folder, f"{event}.sh")
            with suppress(OSError):
                yield from _writable(script, os.stat(script).st_mode)

    def endpoints(self) -> Iterator[Concern]:
        """Certificates and keys. Sockets that systemd opens cannot be checked here."""
        yield from self._listen(self.config.places, self.config.trusted_proxies)
        for each in self.config.listen if self.config.page else ():
            if each.kind == "tcp" and each.reachable and not each.proxied:
                text = f"{each.text} has no TLS"
                text += ": others can alter the page, and so get tokens"
                yield _risky("$.page", text)
        admin = self.config.admin
        if admin is None:
            return
        yield from self._listen({"$.admin": admin}, NOBODY)
        if admin.reachable and "clientCA" not in admin.arguments:
            text = "any client that can connect can read it: there is no password"
            yield _risky("$.admin", text)

    def _listen(
        self, places: Mapping[str, Endpoint], trusted: Networks
    ) -> Iterator[Concern]:
        """Mistakes in the listeners that the daemon would open. Nothing is opened."""
        ours = {at: each for at, each in places.items() if each.kind != "systemd"}
        try:
            listeners(self.reactor, ours, trusted, self.path)
        except ConfigError as error:
            for mistake in error.mistakes:
                yield _wrong(self.path, mistake)
        for place, each in ours.items():
            if each.kind == "ssl":
                yield from self._tls(place, each)

    def _tls(self, place: str, endpoint: Endpoint) -> Iterator[Concern]:
        key = endpoint.arguments["privateKey"]
        with suppress(OSError):
            if os.stat(key).st_mode & stat.S_IRWXO:
                text = f"this private key is readable by all users: {_chmod('o=', key)}"
                yield _risky(key, text)
        chain = chain_of(endpoint)
        for each in chain:
            ends = each.not_valid_after_utc.timestamp()
            self.certificates.append(Validity(place, name_of(each), ends))
            yield from _validity(place, each, datetime.fromtimestamp(self.now, UTC))
        known = read_certificates(endpoint.arguments.get("clientCA"))
        for each in chain[:1]:
            yield from _key(place, each)
            yield from _issuers(place, each, chain, known)


def _try_store(config: Config, store: S3) -> tuple[str, None]:
    """Use an object store, as the daemon does at its start and for the data of a file,
    with the rights of the home's owner.

    :returns: risks, one per line
    :raises OperatorError: it cannot be used
    """
    # Slow imports, which only an object store needs.
    from filebucket.store.s3 import credentials, probe  # noqa: PLC0415
    from filebucket.store.s3.records import Keys  # noqa: PLC0415

    load_modules(store)
    become_owner_of(config.home, PRIVATE)
    who = credentials.read(store.credentials)
    found = probe.check(store, who, Keys(store.prefix), writes=True)
    return "\n".join(found.risks), None


def _unsealable(error: OSError) -> str:
    return f"cannot be sealed: {reason_of(error)}"


def _is_local(endpoint: Endpoint) -> bool:
    return "unix" in {endpoint.kind, endpoint.arguments.get("domain", "").lower()}


def _clients_of(endpoint: Endpoint) -> Sequence[IPNetwork]:
    """The widest networks whose clients can connect there."""
    if _is_local(endpoint):
        return ()
    interface = endpoint.arguments.get("interface", "")
    if not interface:
        is_6 = endpoint.kind == "tcp6" or endpoint.arguments.get("domain") == "INET6"
        return _ANYWHERE if is_6 else _ANYWHERE[:1]
    address = ip_address("127.0.0.1" if interface == "localhost" else interface)
    if address.version == 6 and address.is_unspecified:
        # It accepts IPv4 as well.
        return _ANYWHERE
    networks = _LOOPBACK if address.is_loopback else _ANYWHERE
    return [each for each in networks if each.version == address.version]


def _key(place: str, certificate: Certificate) -> Iterator[Concern]:
    """Whether clients accept its key."""
    key = certificate.public_key()
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name not in _CURVES:
        yield _wrong(
            place,
            f"the certificate of {name_of(certificate)} has a key on"
            f" the curve {key.curve.name}, which no client accepts: create one on"
            " secp256r1",
        )


def _issuers(
    place: str,
    certificate: Certificate,
    chain: Sequence[Certificate],
    known: Sequence[Certificate],
) -> Iterator[Concern]:
    """Whether the chain leads to an issuer that clients know."""
    sent = {each.subject: each for each in chain}
    seen = set()
    while certificate.issuer != certificate.subject:
        seen.add(certificate.subject)
        issuer = sent.get(certificate.issuer)
        if issuer is None or issuer.subject in seen:
            break
        certificate = issuer
    else:
        return
    known_names = {each.subject for each in (*known, *read_roots(TRUSTED))}
    if certificate.issuer not in known_names:
        yield _risky(
            place,
            f"the certificate of {certificate.issuer.rfc4514_string()}, the issuer of"
            f" {name_of(certificate)}, is missing: add it to the same"
            " file or as extraCertChain, or, if it is your own CA, give it to the"
            " clients; otherwise they cannot verify the server",
        )


def _validity(place: str, certificate: Certificate, now: datetime) -> Iterator[Concern]:
    name = f"the certificate of {name_of(certificate)}"
    ends = certificate.not_valid_after_utc
    if certificate.not_valid_before_utc > now:
        start = certificate.not_valid_before_utc
        yield _wrong(place, f"{name} is not valid before {start:%Y-%m-%d}")
    if ends <= now:
        yield _wrong(place, f"{name} expired on {ends:%Y-%m-%d}")
    elif ends <= now + timedelta(seconds=SOON):
        yield _risky(place, f"{name} expires on {ends:%Y-%m-%d}")


def _in_clear(data: Any) -> bool:
    """Whether the configuration contains a token in clear text."""
    return any(
        isinstance(each, str)
        or "token" in each
        or any(isinstance(token, str) or "token" in token for token in each["tokens"])
        for each in data["buckets"]
        if isinstance(each, str) or "token" in each or "tokens" in each
    )


def _writable(path: str, mode: int) -> Iterator[Concern]:
    if mode & stat.S_IWOTH:
        yield _risky(path, f"is writable by all users: {_chmod('o-w', path)}")


def _may_change(path: str) -> bool:
    """Whether this user may change or replace a file."""
    for each in {os.path.abspath(path), os.path.realpath(path)}:
        # A user who may not look at it may not change it either.
        with suppress(PermissionError):
            folder = os.path.dirname(each)
            found = os.stat(folder)
            if (
                os.geteuid() in (found.st_uid, os.stat(each).st_uid)
                or os.access(each, os.W_OK, effective_ids=True)
                or (
                    os.access(folder, os.W_OK, effective_ids=True)
                    and not found.st_mode & stat.S_ISVTX
                )
            ):
                return True
    return False


def _remedy(home: str, folder: str, owner: int) -> str:
    """What lets this user write to a folder of a home, to append; may be empty."""
    user = os.geteuid()
    if owner == user:
        return f": {_chmod('u+wx', folder)}"
    if os.stat(home).st_uid != user:
        return ""
    return f"; as root, run: {giving(home, user, owner)}"


def _chmod(mode: str, path: str) -> str:
    return f"chmod {mode} {shlex.quote(path)}"


def _place(label: str) -> str:
    return f"bucket {label}"


def _user() -> str:
    """The name of the current effective user."""
    name = user_name(os.geteuid())
    return f"user {name}" if name.isdigit() else name
