"""Reads and checks the configuration file.

:func:`load` gives a frozen :class:`~filebucket.config.config.Config`, or raises one
:class:`~filebucket.base.errors.ConfigError` with every mistake and its place. attrs
defines the structure, cattrs walks it, and :mod:`filebucket.config.values` checks the
values. No message and no ``repr`` contains a token: a bucket keeps only the SHA-256 of
its token, except as the name of its folder if the bucket has no name.
"""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NewType

import attrs
import cattrs
from attrs import field, frozen
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from filebucket.base.errors import ConfigError, shown
from filebucket.config import values
from filebucket.config.config import (
    DEFAULT_CONFIG,
    Buckets,
    Config,
    Defaults,
    Listen,
)
from filebucket.config.endpoint import Endpoint, parse_endpoint
from filebucket.config.values import (
    BucketName,
    ByteCount,
    Duration,
    Factor,
    Flag,
    Line,
    Moment,
    Network,
    Path,
    Pattern,
    Period,
    Sha256Hex,
    Share,
    TokenText,
)
from filebucket.model import names
from filebucket.model.bucket import HOLD, SHRINK_ALERT, Bucket, Held, Keep, Pause
from filebucket.model.client import Networks
from filebucket.model.objects import S3
from filebucket.model.place import PostgreSQL
from filebucket.model.schedule import Cron, Expectation, Schedule, Zone
from filebucket.model.token import Token, token_digest, token_like

Tokens = NewType("Tokens", tuple[Token, ...])
Patterns = NewType("Patterns", tuple[Pattern, ...])
Holds = NewType("Holds", tuple[Held, ...])
S3Keys = NewType("S3Keys", S3)
Urls = NewType("Urls", tuple[str, ...])


@frozen
class _TokenObject:
    """A token that the file gives as an object."""

    token: TokenText | None = field(default=None, repr=False)
    token_sha256: Sha256Hex | None = None
    expires: Moment | None = None


@frozen
class _Settings:
    """The settings of a bucket that ``defaults`` can have, too."""

    max_file_size: ByteCount | None = None
    min_file_size: ByteCount | None = None
    quota: ByteCount | None = None
    allow_from: Networks | None = None
    overwrite: Flag = Flag(False)
    series: Patterns = Patterns(())
    expect: Expectation | None = None
    shrink_alert: Share = Share(SHRINK_ALERT)
    grow_alert: Factor | None = None
    keep: Keep | None = None
    hold: Duration = Duration(HOLD)
    drill: Period | None = None


@frozen
class _BucketObject(_Settings):
    """A bucket that the file gives as an object."""

    token: TokenText | None = field(default=None, repr=False)
    token_sha256: Sha256Hex | None = None
    expires: Moment | None = None
    name: BucketName | None = None
    tokens: Tokens | None = field(default=None, repr=False)
    comment: Line = Line("")
    paused: Pause | None = None
    retired: Flag = Flag(False)
    held: Holds = Holds(())


@frozen
class _StoreObject:
    """Where files are stored instead of the home."""

    s3: S3Keys


@frozen
class _CatalogueObject:
    """Where the catalogue is instead of the home."""

    postgresql: Line


def load(path: str) -> Config:
    """Read and check the configuration.

    :param path: the file; relative paths in it are resolved from its folder
    :raises ConfigError: every mistake at once
    """
    return parse(read_text(path), path)


def read_text(path: str) -> str:
    """The configuration's text, unchecked.

    :raises ConfigError: it cannot be read
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise unreadable(path, error) from None
    except UnicodeDecodeError:
        raise ConfigError(path, ["is not UTF-8"]) from None


def unreadable(path: str, error: OSError) -> ConfigError:
    """The error of a configuration that cannot be read."""
    hint = "; give another file with --config" if path == DEFAULT_CONFIG else ""
    return ConfigError(path, [f"cannot be read: {error.strerror}{hint}"])


def parse(text: str, path: str) -> Config:
    """As :func:`load`, from the file's ``text``."""
    if text.startswith("\ufeff"):
        mistake = "begins with a byte order mark; save it as UTF-8 without one"
        raise ConfigError(path, [mistake])
    objects = _Objects()
    try:
        data = json.loads(
            text, object_pairs_hook=objects.make, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        if _after_a_comma(text, error.pos):
            place += "; JSON allows no comma before a closing bracket"
        raise ConfigError(
            path, [f"is not valid JSON: {error.msg} at {place}"]
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(path, [f"is not valid JSON: {error}"]) from None
    mistakes = list(_repeated(data)) if objects.any_repeated else []
    if not isinstance(data, dict):
        raise ConfigError(path, [*mistakes, "$: must be an object"])
    mistakes += _said_twice(data)
    mistakes += _admin_among_pushes(data)
    try:
        config = _CONVERTER.structure(data, Config)
    except cattrs.ClassValidationError as errors:
        mistakes += _placed(errors)
        mistakes += _contradictions(_fit_buckets(data.get("buckets")))
        raise ConfigError(path, mistakes) from None
    config = _with_defaults(config, data["buckets"])
    mistakes += _contradictions(list(enumerate(config.buckets)))
    mistakes += _sizes(config)
    mistakes += _nameless_buckets(config)
    if mistakes:
        raise ConfigError(path, mistakes)
    folder = os.path.dirname(os.path.abspath(path))
    return attrs.evolve(
        config,
        home=Path(os.path.normpath(os.path.join(folder, config.home))),
        hooks=Path(os.path.normpath(os.path.join(folder, config.hooks))),
        listen=Listen(tuple(each.in_folder(folder) for each in config.listen)),
        admin=config.admin and config.admin.in_folder(folder),
        store=config.store and _in_folder(config.store, folder),
    )


def _in_folder(store: S3, folder: str) -> S3:
    """The settings with absolute paths."""

    def absolute(path: str | None) -> str | None:
        return path and os.path.normpath(os.path.join(folder, path))

    return attrs.evolve(
        store,
        credentials=absolute(store.credentials),
        delete_credentials=absolute(store.delete_credentials),
        ca=absolute(store.ca),
    )


def _with_defaults(config: Config, given: list[Any]) -> Config:
    """The configuration with the defaults in its buckets.

    :param given: the buckets as in the file
    """

    def complete(bucket: Bucket, keys: Any) -> Bucket:
        own = keys if isinstance(keys, dict) else {}
        missing = {key: config.defaults[key] for key in config.defaults.keys() - own}
        return attrs.evolve(bucket, **missing)

    if not config.defaults:
        return config
    buckets = tuple(map(complete, config.buckets, given))
    return attrs.evolve(config, buckets=Buckets(buckets))


def _after_a_comma(text: str, position: int) -> bool:
    """Whether the syntax error is a comma before a closing bracket."""
    # Python 3.13 reports the comma, older ones what follows.
    before, rest = text[:position].rstrip(), text[position:].lstrip()
    if rest.startswith(","):
        before, rest = ",", rest[1:].lstrip()
    return before.endswith(",") and rest.startswith(("}", "]"))


class _Repeated(dict[str, Any]):
    """A JSON object with repeated keys."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        count = Counter(key for key, _ in pairs)
        self.repeated = sorted(key for key in count if count[key] > 1)


class _Objects:
    """Makes the JSON objects of one text.

    :ivar any_repeated: whether one of them repeats a key
    """

    def __init__(self) -> None:
        self.any_repeated = False

    def make(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        self.any_repeated = True
        return _Repeated(pairs)


def _repeated(data: Any) -> Iterator[str]:
    """Each key that is given twice in one object, with the object's place."""
    # No recursion: JSON may be nested deeper than Python's recursion limit.
    waiting: deque[tuple[str, Any]] = deque([("$", data)])
    while waiting:
        place, value = waiting.popleft()
        if isinstance(value, _Repeated):
            for key in value.repeated:
                yield f"{place}: the key {shown(key)} is given twice in one object"
        if isinstance(value, dict):
            waiting += [(f"{place}.{shown(key)}", each) for key, each in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{place}[{i}]", each) for i, each in enumerate(value)]


def _said_twice(data: dict[str, Any]) -> Iterator[str]:
    """``listen`` beside ``host`` or ``port``, or an endpoint that is listed twice."""
    if "listen" not in data:
        return
    for key in ("host", "port"):
        if key in data:
            yield f"$.{key}: cannot be used together with listen, which replaces it"
    found: list[Endpoint | None] = []
    for index, endpoint in enumerate(_readable(data["listen"])):
        if endpoint and endpoint in found:
            yield f"$.listen[{index}]: is the same as $.listen[{found.index(endpoint)}]"
        found.append(endpoint)


def _readable(listen: Any) -> Iterator[Endpoint | None]:
    """The endpoints of a list; None for one with a mistake."""
    for each in listen if isinstance(listen, list) else []:
        try:
            yield _endpoint(each)
        except ValueError:
            yield None


def _admin_among_pushes(data: dict[str, Any]) -> Iterator[str]:
    """The admin listener must not be one where clients push."""
    (admin,) = _readable([data.get("admin")])
    if admin is None:
        return
    if admin.proxied:
        yield "$.admin: must not be a haproxy endpoint"
    by_port = [Endpoint("tcp", {"port": str(data.get("port", 1234))}, "")]
    pushes = _readable(data["listen"]) if "listen" in data else by_port
    if any(each and admin.same_place(each) for each in pushes):
        yield "$.admin: is used for pushes; admin needs its own endpoint"


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")


def _fit_buckets(value: Any) -> list[tuple[int, Bucket]]:
    """The buckets without a mistake of their own, with their indexes."""
    fit = []
    for index, each in enumerate(value if isinstance(value, list) else []):
        with suppress(ValueError, cattrs.ClassValidationError):
            fit.append((index, _bucket(each)))
    return fit


def _contradictions(buckets: list[tuple[int, Bucket]]) -> Iterator[str]:
    """Conflicts between buckets, or within the tokens of one."""
    opens = {token.sha256 for _, bucket in buckets for token in bucket.tokens}
    tokens: dict[bytes, int] = {}
    directories: dict[str, int] = {}
    for index, bucket in buckets:
        place = f"$.buckets[{index}]"
        if bucket.name and _holds_any(opens, bucket.name):
            yield f"{place}.name: must not contain a token, because names are logged"
        if any(_holds_any(opens, pattern) for pattern in bucket.series):
            yield f"{place}.series: must not contain a token, because series are logged"
        if _holds_any(opens, bucket.comment):
            yield f"{place}.comment: must not contain a token, because it is shown"
        if bucket.paused is not None and _holds_any(opens, bucket.paused.reason):
            yield f"{place}.paused: must not contain a token, because it is shown"
        if any(_holds_any(opens, each.reason) for each in bucket.held):
            yield f"{place}.held: must not contain a token in a reason, which is shown"
        before = len(tokens)
        for token in bucket.tokens:
            first = tokens.setdefault(token.sha256, index)
            if first != index:
                yield f"{place}: has the same token as $.buckets[{first}]"
                break
        else:
            if len(tokens) != before + len(bucket.tokens):
                yield f"{place}.tokens: a token is listed twice"
            first = directories.setdefault(bucket.directory, index)
            if first != index:
                yield f"{place}: has the same folder as $.buckets[{first}]"


def _sizes(config: Config) -> Iterator[str]:
    """Size limits that no file can meet."""
    most, least = config.max_file_size, config.min_file_size
    if _nothing_between(least, most):
        yield "$.min_file_size: is larger than max_file_size"
        return
    for index, each in enumerate(config.buckets):
        its_most = most if each.max_file_size is None else each.max_file_size
        its_least = least if each.min_file_size is None else each.min_file_size
        if _nothing_between(its_least, its_most):
            yield f"$.buckets[{index}]: min_file_size is larger than max_file_size"


def _nameless_buckets(config: Config) -> Iterator[str]:
    """Buckets that an object store must not have."""
    if config.store is None:
        return
    for index, each in enumerate(config.buckets):
        if each.name is None:
            yield (
                f"$.buckets[{index}]: must have a name, since keys in the object store"
                " would contain its token"
            )


def _nothing_between(least: int | None, most: int | None) -> bool:
    return least is not None and most is not None and least > most


def _holds_any(tokens: set[bytes], text: str) -> bool:
    """Whether ``text`` contains a token with one of these SHA-256."""
    return any(_digest(word) in tokens for word in token_like(text))


def _bucket(value: Any, _: Any = None) -> Bucket:
    if isinstance(value, str):
        token = values.token(value)
        return Bucket((Token(_digest(token)),), directory=token)
    if not isinstance(value, dict):
        raise ValueError("must be a token or an object")
    given = _CONVERTER.structure(_without_nulls(value, _BucketObject), _BucketObject)
    if [given.token, given.token_sha256, given.tokens].count(None) != 2:
        raise ValueError("must have exactly one of token, token_sha256 and tokens")
    directory = given.name or given.token
    if directory is None:
        raise ValueError("must have a name unless it has the key token")
    own = _TokenObject(given.token, given.token_sha256, given.expires)
    tokens = given.tokens or (_token_of(own),)
    if given.tokens and given.expires is not None:
        raise ValueError(
            "expires cannot be used together with tokens; set it for each token"
        )
    settings = {name: getattr(given, name) for name in _SETTINGS}
    return Bucket(tokens, directory, **settings)


def _without_nulls(value: dict[str, Any], kind: type) -> dict[str, Any]:
    """The object without its null values, which count as missing keys."""
    if None not in value.values():
        return value
    known = {each.name for each in attrs.fields(kind)}
    return {
        key: each for key, each in value.items() if each is not None or key not in known
    }


def _defaults(value: Any, _: Any = None) -> Defaults:
    """The settings that are given."""
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    given = _without_nulls(value, _Settings)
    found = _CONVERTER.structure(given, _Settings)
    return Defaults({key: getattr(found, key) for key in given})


OPENS = frozenset({"token", "token_sha256", "expires", "tokens"})
"""The keys of a bucket about its tokens; its other keys are settings."""
_SETTINGS = [
    each.name for each in attrs.fields(_BucketObject) if each.name not in OPENS
]


def _keep(value: Any, _: Any = None) -> Keep:
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    given = _KEEP(value, Keep)
    if given == Keep():
        raise ValueError(
            "must set at least one of last, daily, weekly, monthly and yearly"
        )
    return given


def _pause(value: Any, _: Any = None) -> Pause:
    if not isinstance(value, dict):
        raise ValueError("must be an object with until and reason")
    return _PAUSE(value, Pause)


def _holds(value: Any, _: Any = None) -> Holds:
    if not isinstance(value, dict):
        raise ValueError("must be an object of file names, each with until and reason")
    for name in value:
        try:
            names.check(name)
        except ValueError as error:
            raise ValueError(f"a key is not a file name: {error}") from None
    # The place of a mistake must not contain the name, which may contain a token.
    ends = _CONVERTER.structure(list(value.values()), tuple[Pause, ...])
    pairs = zip(value, ends, strict=True)
    return Holds(tuple(Held(name, each.until, each.reason) for name, each in pairs))


def _store(value: Any, _: Any = None) -> S3:
    if not isinstance(value, dict):
        raise ValueError("must be an object with s3")
    return _CONVERTER.structure(value, _StoreObject).s3


def _catalogue(value: Any, _: Any = None) -> PostgreSQL:
    if not isinstance(value, dict):
        raise ValueError("must be an object with postgresql")
    return PostgreSQL(_CONVERTER.structure(value, _CatalogueObject).postgresql)


def _s3(value: Any, _: Any = None) -> S3:
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return _S3(_without_nulls(value, S3), S3)


def _urls(value: Any, _: Any = None) -> Urls:
    given = _list(value, values.Url)
    if len(set(given)) < len(given):
        raise ValueError("an endpoint is listed twice")
    return Urls(given)


def _patterns(value: Any, _: Any = None) -> Patterns:
    given = _list([value] if isinstance(value, str) else value, Pattern)
    if len(set(given)) < len(given):
        raise ValueError("a pattern is listed twice")
    return Patterns(given)


def _expectation(value: Any, _: Any = None) -> Expectation:
    if isinstance(value, str):
        return values.expectation(value)
    if not isinstance(value, dict):
        raise ValueError("must be a string or an object")
    return _SCHEDULE(value, Schedule)


def _token_of(given: _TokenObject) -> Token:
    if given.token is not None:
        return Token(_digest(given.token), given.expires)
    return Token(bytes.fromhex(given.token_sha256 or ""), given.expires)


def _token(value: Any, _: Any = None) -> Token:
    if isinstance(value, str):
        return Token(_digest(values.token(value)))
    if not isinstance(value, dict):
        raise ValueError("must be a token or an object")
    given = _CONVERTER.structure(value, _TokenObject)
    if (given.token is None) == (given.token_sha256 is None):
        raise ValueError("must have exactly one of token and token_sha256")
    return _token_of(given)


def _digest(token: str) -> bytes:
    return token_digest(token.encode("ascii"))


def _list(value: Any, kind: Any, may_be_empty: bool = False) -> Any:
    """A list with members of that kind."""
    if not isinstance(value, list):
        raise ValueError("must be a list")
    if not (value or may_be_empty):
        raise ValueError("must not be empty")
    return _CONVERTER.structure(value, tuple[kind, ...])


def _endpoint(value: Any, _: Any = None) -> Endpoint:
    return parse_endpoint(values.text(value))


def _networks(value: Any, _: Any = None) -> Networks:
    given = _list(value, Network)
    networks = tuple(each for each in given if each != "unix")
    return Networks(networks, local="unix" in given)


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    checks: dict[Any, Callable[[Any, Any], Any]] = {
        **values.CHECKS,
        Token: _token,
        Tokens: lambda value, _: _list(value, Token),
        Bucket: _bucket,
        Buckets: lambda value, _: _list(value, Bucket, may_be_empty=True),
        Endpoint: _endpoint,
        Listen: lambda value, _: _list(value, Endpoint),
        Networks: _networks,
        Patterns: _patterns,
        Expectation: _expectation,
        Cron: lambda value, _: values.cron(values.text(value)),
        Keep: _keep,
        Pause: _pause,
        Holds: _holds,
        PostgreSQL: _catalogue,
        S3: _store,
        S3Keys: _s3,
        Defaults: _defaults,
        Zone: lambda value, _: values.zone(values.text(value)),
    }
    for kind, check in checks.items():
        converter.register_structure_hook(kind, check)
    return converter


def _if_given(check: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """A check that accepts null as a missing value."""
    return lambda value, _: None if value is None else check(value)


_CONVERTER = _converter()
_COUNT_HOOKS: dict[str, Any] = {
    each.name: override(struct_hook=_if_given(values.count))
    for each in attrs.fields(Keep)
}
_KEEP = make_dict_structure_fn(Keep, _CONVERTER, **_COUNT_HOOKS)
_PAUSE = make_dict_structure_fn(
    Pause,
    _CONVERTER,
    until=override(struct_hook=values.moment),
    reason=override(struct_hook=values.line),
)
_S3 = make_dict_structure_fn(
    S3,
    _CONVERTER,
    endpoints=override(struct_hook=_urls),
    names_bucket=override(struct_hook=values.s3_bucket),
    data_bucket=override(struct_hook=values.s3_bucket),
    region=override(struct_hook=values.s3_region),
    prefix=override(struct_hook=values.s3_prefix),
    credentials=override(struct_hook=values.path),
    delete_credentials=override(struct_hook=values.path),
    ca=override(struct_hook=values.path),
    part_size=override(struct_hook=values.part_size),
)
_SCHEDULE = make_dict_structure_fn(
    Schedule, _CONVERTER, grace=override(struct_hook=values.duration)
)


def _mistake(error: BaseException, _: Any) -> str:
    """The text of an error that cattrs collected."""
    if isinstance(error, ForbiddenExtraKeysError):
        known = [each.name for each in attrs.fields(error.cl)]
        return "; ".join(_unknown(key, known) for key in sorted(error.extra_fields))
    if isinstance(error, KeyError):
        return "missing"
    if isinstance(error, ValueError):
        return str(error)
    raise error  # a bug in file-bucket, not the operator's mistake


def _unknown(key: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1)
    hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    return f"unknown key {shown(key)}{hint}"


def _placed(errors: cattrs.ClassValidationError) -> list[str]:
    """Every mistake as ``place: mistake``; cattrs has ``mistake @ place``."""
    found = cattrs.transform_error(errors, path="$", format_exception=_mistake)
    return [
        f"{place}: {mistake}"
        for mistake, _, place in (line.rpartition(" @ ") for line in found)
    ]
