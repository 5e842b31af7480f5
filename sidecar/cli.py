"""The command line: arguments in, exit code out. What a command does stands in its own module, imported when asked for.

Exit codes are the contract's: 0 · 1 failure · 2 usage or configuration · 3 the drain deadline passed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import sidecar
from sidecar.errors import ConfigError, SidecarError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.config import Loaded

_FAILURE = 1
_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command: list[str] | None = None
    if words[:1] == ["run"] and "--" in words:
        cut = words.index("--")
        words, command = words[:cut], words[cut + 1 :]
    parser = _parser()
    options = parser.parse_args(words)
    if command == []:
        parser.error("run: nothing after `--`: expected COMMAND [ARG...]")
    options.command_line = command
    try:
        code: int = options.act(options)
    except ConfigError as error:
        for problem in error.problems:
            print(f"sidecar: {problem}", file=sys.stderr)
        return _USAGE
    except SidecarError as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return _FAILURE
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): what it wanted, it has.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        print(f"sidecar: {name}{error.strerror or error}", file=sys.stderr)
        return _USAGE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sidecar", description=sidecar.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"gin-sidecar {sidecar.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="follow, normalize, measure, serve, deliver")
    _configured(run)
    run.usage = "sidecar run [-c FILE] [--set KEY=VALUE]... [--env-file FILE]... [-- COMMAND ARG...]"
    run.epilog = "With `--`, starts COMMAND and follows its stdout and stderr; its exit code is returned."
    run.set_defaults(act=_run)

    check = commands.add_parser("check", help="show the whole configuration, or every problem of it")
    _configured(check)
    check.set_defaults(act=_check)

    validate = commands.add_parser("validate", help="lint log lines against the schema")
    validate.add_argument("files", nargs="*", metavar="FILE", help="log files; stdin without any")
    validate.add_argument("--schema", default="", metavar="FILE", help="another JSON Schema than the built-in one")
    validate.add_argument("--format", choices=("text", "json"), default="text")
    validate.add_argument("--strict", action="store_true", help="accept only lines that are valid as written")
    validate.set_defaults(act=_validate)

    explain = commands.add_parser("explain", help="show what becomes of each line, and why")
    explain.add_argument("files", nargs="*", metavar="FILE", help="log files; stdin without any")
    _configured(explain)
    explain.set_defaults(act=_explain)

    demo = commands.add_parser("demo", help="the whole job with no other program")
    demo.add_argument("--seconds", type=float, default=8.0, help="how long the demo service runs (default: 8)")
    demo.add_argument("--port", type=int, default=None, help="port to serve on (default: 9180, or a free one)")
    demo.set_defaults(act=_demo)

    inject = commands.add_parser("inject", help="add the sidecar to the workloads of a YAML stream")
    files = "manifests; `-` for stdin (default); may be repeated"
    inject.add_argument("-f", "--file", action="append", default=[], metavar="FILE", dest="files", help=files)
    _configured(inject)
    inject.add_argument("--image", default="", metavar="IMAGE", help="image of the sidecar")
    inject.add_argument("--log-mode", default="", choices=("auto", "cri", "api", "file", "fifo"))
    inject.add_argument("-n", "--namespace", default="", help="namespace that those without one will be applied to")
    inject.add_argument("--all", action="store_true", help="every workload, not only those that opt in")
    inject.add_argument("--check", action="store_true", help="write nothing; exit 3 when something would change")
    output = "patch: one line of JSON per workload and per permission"
    inject.add_argument("-o", "--output", default="yaml", choices=("yaml", "patch"), help=output)
    inject.set_defaults(act=_inject)

    injector = commands.add_parser("injector", help="the admission webhook server")
    _configured(injector)
    injector.set_defaults(act=_injector)

    replay = commands.add_parser("replay", help="send dead letters or records again")
    replay.add_argument("files", nargs="+", metavar="FILE", help="NDJSON of dead letters or records")
    _configured(replay)
    replay.set_defaults(act=_replay)

    health = commands.add_parser("healthcheck", help="ask the local /livez; for HEALTHCHECK")
    _configured(health)
    health.set_defaults(act=_healthcheck)
    return parser


def _configured(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", metavar="FILE", help="YAML file (default: $SIDECAR_CONFIG)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="sets", help="set one option")
    parser.add_argument("--env-file", action="append", default=[], metavar="FILE", dest="env_files")


def _load(options: argparse.Namespace, *, opening: bool = False) -> Loaded:
    from sidecar import config  # noqa: PLC0415

    return config.load(
        file=options.config,
        sets=[*options.sets, *(["source.kind=command"] if getattr(options, "command_line", None) else [])],
        env_files=options.env_files,
        environ=os.environ,
        cwd=Path.cwd(),
        opening=opening,
    )


def _run(options: argparse.Namespace) -> int:
    from sidecar import app  # noqa: PLC0415

    return app.run(_load(options, opening=True).config, argv=options.command_line or ())


def _check(options: argparse.Namespace) -> int:
    from sidecar import config  # noqa: PLC0415

    sys.stdout.write(config.describe(_load(options, opening=True)))
    return 0


def _validate(options: argparse.Namespace) -> int:
    from sidecar import lint  # noqa: PLC0415

    return lint.run(options.files, options.schema, as_json=options.format == "json", strict=options.strict)


def _explain(options: argparse.Namespace) -> int:
    from sidecar import explain  # noqa: PLC0415

    return explain.run(options.files, _load(options, opening=True).config)


def _demo(options: argparse.Namespace) -> int:
    from sidecar import demo  # noqa: PLC0415

    return demo.run(options.seconds, options.port)


def _inject(options: argparse.Namespace) -> int:
    from sidecar.injector import manifests  # noqa: PLC0415

    config = manifests.configured(_load(options).config.injector, image=options.image, log_mode=options.log_mode)
    asked = manifests.Asked(
        files=tuple(options.files) or ("-",),
        namespace=options.namespace,
        everything=options.all,
        check=options.check,
        output=options.output,
    )
    return manifests.run(asked, config)


def _injector(options: argparse.Namespace) -> int:
    from sidecar.injector import webhook  # noqa: PLC0415

    return webhook.run(_load(options).config.injector)


def _replay(options: argparse.Namespace) -> int:
    from sidecar import replay  # noqa: PLC0415

    return replay.run(options.files, _load(options, opening=True).config)


def _healthcheck(options: argparse.Namespace) -> int:
    import http.client  # noqa: PLC0415

    config = _load(options).config
    host = config.http.host if config.http.host not in ("0.0.0.0", "::", "") else "127.0.0.1"  # noqa: S104
    connection = http.client.HTTPConnection(host, config.http.port, timeout=2.0)
    try:
        connection.request("GET", "/livez")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"sidecar: http://{host}:{config.http.port}/livez does not answer: {error}", file=sys.stderr)
        return _FAILURE
    finally:
        connection.close()
    return 0 if status == 200 else _FAILURE
