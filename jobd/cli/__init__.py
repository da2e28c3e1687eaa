"""The command `jobd`: one function a verb, in a module for each group of verbs; the table is in `verbs`.

Whatever a verb needs beyond typer is imported inside it, so that `jobd --help` and shell completion
answer at once. Verbs translate words into calls and answers into text; they decide nothing.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the verb on the command line and exit with its code."""
    if sys.argv[1:] == ["health"]:
        # The container's HEALTHCHECK, every few seconds for ever: without typer it costs a fifth.
        from jobd.cli.probe import main as probe

        sys.exit(probe())
    from jobd.cli.shape import report_unexpected
    from jobd.cli.verbs import app

    try:
        app(prog_name="jobd")
    except Exception as error:
        sys.exit(report_unexpected(error))
