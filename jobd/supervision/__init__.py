"""`jobd run --processes N`: one process that watches, N that work.

    jobd run            reads settings and application, complains, and becomes the supervisor (`handover`)
      supervisor        owns the port and the signals; imports neither application nor database driver
        |  tether       a socket pair for each child: orders and questions down, answers up
        +- jobd run     child 1: a whole daemon, with a row of its own in jobd.workers
        +- jobd run     child 2 ...

The first child starts alone: what is wrong with settings, application or database is told once, by it,
and ends everything with its exit code. The others follow when it works. From then on each place of the
crew is kept filled (`ends` decides how), until the supervisor is told to stop. When the supervisor
itself is killed its children find the tether broken, and end as on SIGTERM.

Importing this package imports none of it. `tether` is the children's end; the rest is the supervisor's.
"""

from typing import Final

PLAN: Final = "_JOBD_SUPERVISOR"
"""The variable by which a process knows that it is to be a supervisor."""
