"""The command `jobd`: one function a verb, in a module for each group of verbs; the table is in `verbs`.

Whatever a verb needs beyond typer is imported inside it, so that `jobd --help` and shell completion
answer at once. Verbs translate words into calls and answers into text; they decide nothing.
"""

from __future__ import annotations

import os
import sys

from jobd.supervision import PLAN


def main() -> None:
    """Run the verb on the command line and exit with its code."""
    if sys.argv[1:] == ["health"]:
        # The container's HEALTHCHECK, every few seconds for ever: without typer it costs a fifth.
        from jobd.cli.probe import main as probe

        sys.exit(probe())
    if PLAN in os.environ:
        sys.exit(_supervise())
    from jobd.cli.shape import report_unexpected
    from jobd.cli.verbs import app

    try:
        app(prog_name="jobd")
    except Exception as error:
        sys.exit(report_unexpected(error))


def _supervise() -> int:
    """What `jobd run --processes N` became, once it knew that it may."""
    from jobd.errors import JobdError
    from jobd.supervision.handover import take_plan
    from jobd.supervision.supervisor import supervise

    plan = take_plan()
    assert plan is not None
    try:
        return supervise(plan)
    except JobdError as error:
        # typer only here: it would be a fifth of the supervisor.
        from jobd.cli.shape import report

        return report(error)
    except Exception as error:
        from jobd.cli.shape import report_unexpected

        return report_unexpected(error)
