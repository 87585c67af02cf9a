"""predis-lab: the workbook from the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .bench.results import OUTPUTS, ROOT, new_run_id


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 where all is well, 1 where a notebook failed or a regression is confirmed, 2 where nothing was begun."""
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
    nightly = commands.add_parser(
        "nightly", help="run all notebooks, or go on where a run was cut short"
    )
    nightly.add_argument("--profile", default="nightly", help="default: nightly")
    nightly.add_argument("--fresh", action="store_true", help="begin anew, whatever was cut short")
    nightly.add_argument(
        "--keep", type=_at_least_one, default=14, help="nightly runs that stay (default: 14)"
    )
    nightly.add_argument(
        "--limit",
        type=_at_least_one,
        default=4 * 3600,
        help="seconds a notebook may take (default: 4 hours)",
    )
    for command in (report, nightly):
        command.add_argument(
            "--source", type=Path, default=ROOT, help="folder that holds notebooks/ and params/"
        )
        command.add_argument(
            "--output", type=Path, default=OUTPUTS, help="folder for runs (default: outputs)"
        )
    compare = commands.add_parser("compare", help="what became slower or faster since another run")
    compare.add_argument("run", type=Path, help="folder of a run")
    compare.add_argument(
        "baseline",
        type=Path,
        nargs="?",
        help="another one (default: the recorded run of this GPU or CPU)",
    )
    compare.add_argument("--all", action="store_true", help="show what has not changed too")
    compare.add_argument(
        "--history", type=Path, metavar="DIR", help="look for change points in this folder of runs"
    )
    dashboard = commands.add_parser("dashboard", help="watch Predis and Redis work, in a browser")
    dashboard.add_argument("--port", type=int, default=5010, help="on loopback (default: 5010)")
    dashboard.add_argument(
        "--capacity", default="1GiB", help='of Predis, such as "4GiB" (default: 1GiB)'
    )
    instead = dashboard.add_mutually_exclusive_group()
    instead.add_argument(
        "--replay", type=Path, metavar="DIR", help="show a recording instead of load"
    )
    instead.add_argument(
        "--record",
        nargs=2,
        metavar=("SECONDS", "DIR"),
        help="play all scenes without a browser, and leave a recording in that folder",
    )
    commands.add_parser("readme", help="write README's figure and table from the reference run")
    options = parser.parse_args(arguments)
    if options.command == "readme":
        from .report.readme import update_readme

        update_readme(ROOT / "README.md")
        return 0
    if options.command == "compare":
        from .bench.regressions import compare_runs

        return compare_runs(
            options.run, options.baseline, everything=options.all, history=options.history
        )
    if options.command == "dashboard":
        return _dashboard(options)
    return _nightly(options) if options.command == "nightly" else _report(options)


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


def _nightly(options: argparse.Namespace) -> int:
    from .report import nightly, runner

    try:
        jobs = runner.plan(options.source / "notebooks", options.source / "params", options.profile)
    except runner.ParameterError as error:
        print(f"predis-lab: {error}", file=sys.stderr)
        return 2
    return nightly.nightly(
        jobs,
        options.output,
        options.profile,
        fresh=options.fresh,
        keep=options.keep,
        limit_s=options.limit,
    )


def _dashboard(options: argparse.Namespace) -> int:
    from .live import tape

    try:
        if options.record:
            from .live.watching import record

            seconds, directory = options.record
            return record(float(seconds), Path(directory), options.capacity)
        from .live.serve import serve

        return serve(options.port, str(options.replay or ""), options.capacity)
    except (tape.TapeError, OSError, ValueError) as error:
        print(f"predis-lab: {error}", file=sys.stderr)
        return 2


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
