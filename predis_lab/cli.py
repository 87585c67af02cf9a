"""predis-lab: the workbook from the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .bench.results import OUTPUTS, ROOT, new_run_id


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 where everything ran, 1 where a notebook failed, 2 where nothing could be begun."""
    parser = argparse.ArgumentParser(prog="predis-lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="run the notebooks and leave a report")
    report.add_argument(
        "--profile", default="smoke", help="smoke, nightly or deep (default: smoke)"
    )
    report.add_argument("--notebooks", nargs="+", metavar="NUMBER", help="only these, e.g. 00 06")
    report.add_argument(
        "--run", default=None, help="name of the run's folder (default: the time, UTC)"
    )
    report.add_argument(
        "--source", type=Path, default=ROOT, help="folder that holds notebooks/ and params/"
    )
    report.add_argument(
        "--output", type=Path, default=OUTPUTS, help="folder for runs (default: outputs)"
    )
    commands.add_parser("readme", help="write README's figure and table from the reference run")
    options = parser.parse_args(arguments)
    if options.command == "readme":
        from .report.readme import update_readme

        update_readme(ROOT / "README.md")
        return 0
    return _report(options)


def _report(options: argparse.Namespace) -> int:
    from .report import runner

    try:
        jobs = runner.plan(
            options.source / "notebooks",
            options.source / "params",
            options.profile,
            options.notebooks,
        )
    except runner.ParameterError as error:
        print(f"predis-lab: {error}", file=sys.stderr)
        return 2
    directory = options.output / (options.run or new_run_id())
    outcomes = runner.execute(jobs, directory.resolve())
    print(f"Report: {runner.publish(directory.resolve(), outcomes)}")
    return int(any(outcome.error for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
