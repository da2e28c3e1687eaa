"""A PostgreSQL for the container test: prints its socket's folder, lives until standard input ends."""

import sys

from tests.postgres import running_server

with running_server() as server:
    # The container's user may enter, but not list; the folder's name is random.
    server.folder.chmod(0o711)
    print(server.folder, flush=True)
    sys.stdin.read()
