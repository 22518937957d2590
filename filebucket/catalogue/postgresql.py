"""The catalogue in a PostgreSQL database.

One connection at a time writes, as in SQLite: a lock of PostgreSQL has the writers of
all daemons wait for each other, so that no two of them can deadlock. A connection that
was lost is made again by the next call.

A server that does not answer costs seconds. Errors become a :class:`CatalogueError`
without the connection string, which may contain a password.
"""

from __future__ import annotations

import math
import re
import secrets
import select
import time
import uuid
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from filebucket.base.text import printable
from filebucket.catalogue.connection import (
    NOT_CREATED,
    CatalogueError,
    Do,
    NewerError,
)
from filebucket.catalogue.postgresql_schema import SCHEMA, UPGRADES, VERSION
from filebucket.model.place import PostgreSQL

RV = TypeVar("RV")

WRITER_LOCK = 0x66696C65
"""Key of the advisory lock that a transaction holds which writes."""

STATEMENT_TIMEOUT = 60.0
"""Seconds that a statement may take."""

LONG_TIMEOUT = 600.0
"""The same for one that reads the whole history."""

LOCK_TIMEOUT = 30.0
"""Seconds to wait for another transaction."""

IDLE_TIMEOUT = 30.0
"""Seconds after which the server ends a transaction whose daemon is gone."""

ANSWER_TIMEOUT = STATEMENT_TIMEOUT + 10.0
"""Seconds after which a server that should have ended the statement counts as dead."""

AT_ONCE = 2000
"""Rows that are read at once, if there may be a million."""

_CONNECTION: dict[str, str | int] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15000,
    "application_name": "file-bucket",
}
"""Settings of a connection, unless the connection string has others."""

_SESSION = {
    "search_path": f"{SCHEMA}, pg_catalog",
    "statement_timeout": f"{STATEMENT_TIMEOUT:.0f}s",
    "lock_timeout": f"{LOCK_TIMEOUT:.0f}s",
    "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT:.0f}s",
    # The server, too, has to notice that the other machine is gone.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "jit": "off",
    # An operator may have changed these for a role or a database. A time that is
    # rounded finds no row again, and a transaction must see what was committed while
    # it waited for the lock.
    "extra_float_digits": "1",
    "default_transaction_isolation": "read committed",
}


_OWNER = "filebucket.session"
"""Name of the setting that tells whose session it is."""


class _Number(Loader):
    """Reads a sum, which PostgreSQL does not count in 64 bits, as a whole number."""

    def load(self, data: Buffer) -> int:
        return int(bytes(data))


class _NoAnswerError(psycopg.OperationalError):
    """The server did not answer in time."""


class Raw(psycopg.Connection[Any]):
    """A connection that waits for an answer, but not longer than it can take.

    :ivar patience: seconds that it waits; None is :data:`ANSWER_TIMEOUT`
    :ivar session: a random text that its session has as a setting
    """

    patience: float | None = None
    session: str = ""

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait for the end of a dialogue with the server. psycopg's own wait has no
        limit.
        """
        try:
            return _answer(gen, self.pgconn.socket, self.patience or ANSWER_TIMEOUT)
        except (_NoAnswerError, KeyboardInterrupt):
            # The answer would be taken for that to the next statement.
            self.close()
            raise


def _answer(gen: Generator[int, int, RV], socket: int, seconds: float) -> RV:
    """What a dialogue returns, which yields whether it waits to read (1) or write (2),
    and is sent which is possible.
    """
    end = time.monotonic() + seconds
    poll = select.poll()
    try:
        wanted = next(gen)
        while True:
            reads, writes = wanted & _READ, wanted & _WRITE
            poll.register(
                socket,
                (reads and select.POLLIN) | (writes and select.POLLOUT),
            )
            left = max(0.0, end - time.monotonic())
            found = poll.poll(None if math.isinf(left) else left * 1000)
            if not found:
                raise _NoAnswerError("no answer")
            # An error is noticed by either.
            ((_, event),) = found
            wanted = gen.send(
                (_READ if event & ~select.POLLOUT else 0)
                | (_WRITE if event & ~select.POLLIN else 0)
            )
    except StopIteration as done:
        result: RV = done.value
        return result


_READ, _WRITE = 1, 2


class Database:
    """A connection to the catalogue in a database.

    :ivar identity: a random id that was given when its tables were created
    """

    is_shared = True

    def __init__(self, place: PostgreSQL, create: bool, temporary: str) -> None:
        """
        :param create: whether to create it if it does not exist
        :param temporary: the statement that creates its temporary table; may be empty
        :raises CatalogueError: it cannot be used
        """
        self._place = place
        # The server empties it at the end of each transaction.
        self._temporary = temporary and f"{temporary} ON COMMIT DELETE ROWS"
        self._in_transaction = False
        with translated_errors():
            self.raw = self._connected()
            try:
                self.identity = upgraded(self.raw, create)
            except BaseException:
                self.raw.close()
                raise

    def _connected(self) -> Raw:
        raw = connect(self._place)
        try:
            if self._temporary:
                raw.execute(self._temporary)
        except BaseException:
            raw.close()
            raise
        return raw

    def _first(self, step: Callable[[Raw], RV]) -> RV:
        """The first step of a dialogue, which is repeated if the connection was lost
        since the last one.
        """
        if not self.raw.closed:
            try:
                return step(self.raw)
            except _NoAnswerError:
                raise
            except psycopg.OperationalError:
                if not self.raw.closed:
                    raise
        self.raw = self._connected()
        if step is not _identity and _identity(self.raw) != self.identity:
            self.raw.close()
            raise CatalogueError("the database now has another catalogue")
        return step(self.raw)

    def close(self) -> None:
        self.raw.close()

    def check(self) -> None:
        """Nothing: PostgreSQL reports damage when it reads it, and its operator repairs
        it.
        """

    def is_there(self) -> bool:
        """Whether the tables were neither removed nor replaced.

        :raises CatalogueError: that cannot be determined now
        """
        with translated_errors():
            return self._first(_identity) == self.identity

    def execute(self, query: str, values: Any = ()) -> psycopg.Cursor[Any]:
        with translated_errors():
            if self._in_transaction:
                return self._do(query, values)
            return self._first(lambda _: self._do(query, values))

    def _do(self, query: str, values: Any = ()) -> psycopg.Cursor[Any]:
        return self.raw.execute(translated(query), _named(values))

    def ask(self, query: str, *values: Any) -> list[Any]:
        return self.execute(query, values).fetchall()

    def each(self, query: str, *values: Any) -> Iterator[Any]:
        with ExitStack() as stack:
            stack.enter_context(translated_errors())
            if not self._in_transaction:
                stack.enter_context(self._block("BEGIN READ ONLY"))
            stack.enter_context(_patient(self.raw, LONG_TIMEOUT))
            cursor = stack.enter_context(self.raw.cursor("every"))
            cursor.itersize = AT_ONCE
            cursor.execute(translated(query), _named(values))
            yield from cursor

    @contextmanager
    def change(self, durable: bool = False) -> Iterator[Do]:
        begin = f"BEGIN; SELECT pg_advisory_xact_lock({WRITER_LOCK})"
        if durable:
            begin += "; SET LOCAL synchronous_commit = on"
        with translated_errors(), self._block(begin):
            yield self._do

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        with translated_errors(), self._block(begin):
            yield

    @contextmanager
    def loading(self) -> Iterator[None]:
        """One transaction that adds rows with :meth:`load`, whose totals are known."""
        with self.change(durable=True) as do, _patient(self.raw, math.inf):
            do("ALTER TABLE push DISABLE TRIGGER USER")
            yield
            do("ALTER TABLE push ENABLE TRIGGER USER")
            do("ANALYZE bucket, series, push, refusal")

    def load(
        self, table: str, names: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        """Add rows to a table, in a block of :meth:`loading`."""
        with (
            self.raw.cursor() as cursor,
            cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row([_storable(each) for each in row])

    @contextmanager
    def _block(self, begin: str) -> Iterator[None]:
        """A transaction."""
        try:
            self._first(lambda raw: raw.execute(begin))
            self._in_transaction = True
            yield
            self.raw.execute("COMMIT")
        except BaseException:
            # The server does so, too, if the connection was lost.
            with suppress(psycopg.Error):
                self.raw.execute("ROLLBACK")
            raise
        finally:
            self._in_transaction = False


def connect(place: PostgreSQL) -> Raw:
    """Connect to the database.

    :raises CatalogueError: it cannot be used
    :raises psycopg.Error: the same
    """
    try:
        given = conninfo_to_dict(place.conninfo)
    except psycopg.ProgrammingError:
        # Its message quotes a part.
        raise CatalogueError("not a connection string") from None
    missing = {name: value for name, value in _CONNECTION.items() if name not in given}
    raw = Raw.connect(
        make_conninfo(place.conninfo, **missing),
        autocommit=True,
        client_encoding="UTF8",
    )
    try:
        raw.adapters.register_loader("numeric", _Number)
        ask_own_session(raw)
        raw.session = secrets.token_hex(8)
        set_up(raw, {**_SESSION, _OWNER: raw.session})
        encoding = value_of(raw, "SHOW server_encoding")
        if encoding != "UTF8":
            raise CatalogueError(f"the database's encoding is {encoding}, not UTF8")
    except BaseException:
        raw.close()
        raise
    return raw


def ask_own_session(raw: Raw) -> None:
    """Make sure that no other connection has the session with its locks, as with a
    pooler that lends sessions for a transaction: two daemons could lead.

    :raises CatalogueError: another one has it
    """
    owner = value_of(raw, f"SELECT current_setting('{_OWNER}', true)")
    if (owner or "") != raw.session:
        raise CatalogueError(
            "connect to PostgreSQL directly, or through a pooler in session mode: other"
            " connections use the same session"
        )


def set_up(raw: Raw, settings: Mapping[str, str]) -> None:
    """Change settings of the server for this connection."""
    raw.execute(
        f"SELECT {', '.join(['set_config(%s, %s, false)'] * len(settings))}",
        [each for pair in settings.items() for each in pair],
    )


@contextmanager
def _patient(raw: Raw, seconds: float) -> Iterator[None]:
    """Statements of a transaction that may take longer than others.

    :param seconds: infinity is any time
    """
    limit = "0" if math.isinf(seconds) else f"{seconds * 1000:.0f}"
    raw.execute(f"SET LOCAL statement_timeout = {limit}")
    raw.patience = seconds + 10
    try:
        yield
        raw.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT * 1000:.0f}")
    finally:
        raw.patience = None


def value_of(raw: Raw, query: str, *values: Any) -> Any:
    """The value that a query returns; None if it returns no row."""
    row = raw.execute(query, values).fetchone()
    return row and row[0]


def _has(raw: Raw, table: str) -> bool:
    # Unlike to_regclass, this sees what another daemon created while this one waited.
    query = (
        f"SELECT 1 FROM pg_tables WHERE schemaname = '{SCHEMA}'"
        f" AND tablename = '{table}'"
    )
    return value_of(raw, query) is not None


def _identity(raw: Raw) -> uuid.UUID | None:
    """The id of the catalogue, if there is one."""
    if not _has(raw, "identity"):
        return None
    found: uuid.UUID | None = value_of(raw, f"SELECT id FROM {SCHEMA}.identity")
    return found


def _version(raw: Raw) -> int:
    """The version of the tables; 0 if there are none.

    :raises NewerError: a newer file-bucket made them
    """
    if not _has(raw, "version"):
        return 0
    found = value_of(raw, f"SELECT version FROM {SCHEMA}.version")
    if found is None:
        raise CatalogueError(
            f"its tables are damaged; DROP SCHEMA {SCHEMA} CASCADE has them created"
            " anew"
        )
    if found > VERSION:
        raise NewerError(found)
    return int(found)


def upgraded(raw: Raw, create: bool) -> uuid.UUID:
    """Upgrade the tables, if needed, and return the catalogue's id.

    :param create: whether to create it if it does not exist
    """
    version, found = _version(raw), _identity(raw)
    if version == VERSION and found is not None:
        return found
    if version == 0 and not create:
        raise CatalogueError(NOT_CREATED)
    with raw.transaction(), _patient(raw, math.inf):
        raw.execute(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")
        # Another daemon may have upgraded them in the meantime.
        version = _version(raw)
        if version == 0:
            raw.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        for script in UPGRADES[version:]:
            raw.execute(script)
        if version < VERSION:
            raw.execute("DELETE FROM version")
            raw.execute("INSERT INTO version VALUES (%s)", [VERSION])
        found = _identity(raw)
        if found is None:
            found = uuid.uuid4()
            raw.execute("INSERT INTO identity VALUES (%s)", [found])
    return found


_TOKEN = re.compile(
    r"'(?:[^']|'')*' | --[^\n]* | :: | \?(?P<place>\d*) | :(?P<name>\w+) | %",
    re.VERBOSE,
)


@lru_cache(maxsize=512)
def translated(query: str) -> str:
    """A statement with psycopg's placeholders."""
    count = 0

    def replaced(found: re.Match[str]) -> str:
        nonlocal count
        token = found[0]
        if found["name"]:
            return f"%({found['name']})s"
        if found["place"] is not None:
            count += 1
            return f"%({found['place'] or count})s"
        return "" if token.startswith("--") else token.replace("%", "%%")

    return _TOKEN.sub(replaced, query)


def _named(values: Any) -> dict[str, Any]:
    pairs = values.items() if isinstance(values, Mapping) else enumerate(values, 1)
    return {str(name): _storable(value) for name, value in pairs}


def _storable(value: Any) -> Any:
    """A value in which PostgreSQL can store every character. A client chooses the names
    of refused pushes, and the text of a failure report, which may only look like JSON.
    """
    if isinstance(value, str):
        if "\0" in value:
            return value.replace("\0", "\ufffd")
        if value.startswith("[") and "\\u" in value:
            return _ESCAPE.sub(lambda found: found["fit"] or "\ufffd", value)
    return value


_ESCAPE = re.compile(
    r"(?P<fit> \\\\ | \\u[dD][89abAB].. \\u[dD][c-fC-F].. )"
    r" | \\u0000 | \\u[dD][89a-fA-F]..",
    re.VERBOSE,
)
"""What escapes a character in JSON that PostgreSQL cannot store: 0, and a half of a
surrogate pair; or an escape that is fit."""


@contextmanager
def translated_errors() -> Iterator[None]:
    """Translate errors of the database into :class:`CatalogueError`."""
    try:
        yield
    except NewerError as error:
        raise CatalogueError(str(error)) from None
    except _FAULTS as error:
        raise CatalogueError(f"PostgreSQL: {_reason(error)}") from None


_FAULTS = (
    psycopg.OperationalError,
    psycopg.InternalError,
    errors.InsufficientPrivilege,
    errors.InvalidSchemaName,
    errors.UndefinedTable,
)
"""Errors that are no bug in a statement."""


def _reason(error: psycopg.Error) -> str:
    """One line, without the connection string."""
    text = error.diag.message_primary
    if text is None:
        # Such as: connection to server at "192.0.2.1" failed: FATAL:  too many clients
        first = (str(error).splitlines() or ["error"])[0]
        text = first.rpartition("failed: ")[2].removeprefix("FATAL:").strip()
    return printable(text)
