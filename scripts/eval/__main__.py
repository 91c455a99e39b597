"""Measures gilprof: its accuracy, its verdicts, its overhead, and the cost of its outputs.

    python3 scripts/eval SUBCOMMAND [--write] [--json] [--quick] …
    python3 scripts/eval render [--check]

Each subcommand prints its results and whether its bounds hold. With --write the results also go
into docs/results, from which the tables of the documents are rendered.
"""
import argparse
import contextlib
import json
import sys
import traceback

# The package is run from the checkout, which is to stay clean.
sys.dont_write_bytecode = True

import common  # noqa: E402
import diff  # noqa: E402
import gate  # noqa: E402
import html_page  # noqa: E402
import kernel  # noqa: E402
import live_view  # noqa: E402
import recording  # noqa: E402
import render  # noqa: E402
import replay  # noqa: E402
import results  # noqa: E402
import service  # noqa: E402
import trees  # noqa: E402
from accuracy import command as accuracy  # noqa: E402
from overhead import command as overhead  # noqa: E402
from verdicts import command as verdicts  # noqa: E402

COMMANDS = {"accuracy": accuracy, "verdicts": verdicts, "overhead": overhead, "kernel": kernel, "gate": gate, "diff": diff, "html": html_page,
            "recording": recording, "replay": replay, "service": service, "trees": trees, "top": live_view}


def parsers():
    how = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": common.EXIT_CODES}
    top = argparse.ArgumentParser(prog="scripts/eval", usage="python3 scripts/eval SUBCOMMAND [OPTION…]", description=__doc__, **how)
    added = top.add_subparsers(dest="command", metavar="SUBCOMMAND", required=True)
    by_name = {}
    for name, command in list(COMMANDS.items()) + [("render", render)]:
        by_name[name] = added.add_parser(name, prog="python3 scripts/eval " + name, help=command.__doc__.partition("\n\n")[0].replace("\n", " "), description=command.__doc__, **how)
        command.add_options(by_name[name])
        if name in COMMANDS:
            common.add_common_options(by_name[name])
    return top, by_name


def measure(command, options):
    """Runs one subcommand; its exit code."""
    # With --json, stdout is for the results alone.
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        measurement = command.run(options)
        for check in measurement.checks:
            common.print_check(check)
    described = common.described(measurement, options)
    with_runs = dict({"schema": results.SCHEMA, "name": command.RESULTS}, **described, runs=measurement.runs)
    if options.output:
        common.replace_file(options.output, json.dumps(with_runs))
    if options.json:
        json.dump(with_runs, sys.stdout)
        print()
    if options.write:
        results.write(command.RESULTS, described)
        render.render_all()
    return common.BROKEN if measurement.broken() else common.HOLDS


def main():
    top, by_name = parsers()
    options = top.parse_args()
    try:
        if options.command == "render":
            return render.run(options)
        command, parser = COMMANDS[options.command], by_name[options.command]
        if options.quick and options.write:
            raise common.UsageError("a quick run cannot be written: its figures are no measurement")
        for name in getattr(command, "NARROWING", ()) if options.write else ():
            if getattr(options, name) != parser.get_default(name):
                raise common.UsageError("--write replaces all rows, so it does not go with --%s" % name)
        if options.quick:
            common.apply_quick(options, parser, command.QUICK)
        return measure(command, options)
    except common.UsageError as e:
        print("scripts/eval %s: %s" % (options.command, e), file=sys.stderr)
        return common.USAGE
    except common.NotMeasured as e:
        print("scripts/eval %s: not measured: %s" % (options.command, e), file=sys.stderr)
        return common.NOT_MEASURED
    except common.Failed as e:
        print("scripts/eval %s: failed: %s" % (options.command, e), file=sys.stderr)
        return common.FAILED
    except KeyboardInterrupt:
        return 130
    except Exception:  # Python would end with 1, which means a broken bound here
        traceback.print_exc()
        return common.FAILED


if __name__ == "__main__":
    sys.exit(main())
