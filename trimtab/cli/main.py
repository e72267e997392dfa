"""The command's root: every subcommand, and the one place where errors become words and exit statuses."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click

from trimtab import __version__
from trimtab.cli import control as control_command
from trimtab.cli import deploy, doctor, live, serve, show, simulate, why
from trimtab.cli.cluster import DEFAULT_NAMESPACE, Cluster
from trimtab.cli.direct import Direct
from trimtab.cli.output import leave_stdout, say
from trimtab.core.errors import InvalidInput, TrimtabError

OF_A_CLUSTER = ("deploy", "apply", "status", "why", "top", "logs", "history", "rollback", "delete")
INTERRUPTED = 130
UNEXPECTED = 1


class Root(click.Group):
    """A group that explains errors, in the order of the help text below rather than of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """The commands in the order in which they were added."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Its own options: errors in them are explained like those of the subcommands'."""
        try:
            return super().parse_args(ctx, args)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            _refuse(ctx, error)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. A TrimtabError ends it with its own exit status; no traceback is shown."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            say("interrupted")
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:  # `trimtab … | head`: whoever read us has seen enough
            leave_stdout()
            ctx.exit(0)
        except click.UsageError as error:
            _refuse(ctx, error)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # noqa: BLE001 -- a traceback never reaches a user unasked
            known = _known_within(error)
            if known is None:
                _confess(error)
                ctx.exit(UNEXPECTED)
            explain(known)
            ctx.exit(known.exit_status)


def _refuse(ctx: click.Context, error: click.UsageError) -> NoReturn:
    """What click has to say of a command's words, as we say such things."""
    command = (error.ctx or ctx).command_path
    explain(InvalidInput(error.format_message(), hint=f"`{command} --help` tells what it takes"))
    ctx.exit(error.exit_code)


def explain(error: TrimtabError) -> None:
    """`error:` and `hint:` lines on stderr."""
    say(f"error: {error}", style="red")
    if error.hint:
        say(f"hint: {error.hint}", style="yellow")
    if os.environ.get("TRIMTAB_DEBUG"):
        say("".join(traceback.format_exception(error)))


def _known_within(error: BaseException) -> TrimtabError | None:
    """The first error with a remedy in what a task group raised; None if there is none."""
    if isinstance(error, TrimtabError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_known_within, error.exceptions)), None)
    return None


def _confess(error: Exception) -> None:
    say(f"error: unexpected: {type(error).__name__}: {error}", style="red")
    if os.environ.get("TRIMTAB_DEBUG"):
        say("".join(traceback.format_exception(error)))
    else:
        say("hint: this is a defect of trimtab; TRIMTAB_DEBUG=1 shows the details to report", style="yellow")


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="trimtab")
@click.option("--kube-context", metavar="NAME", help="Ask the control plane of this cluster, not of a home.")
@click.option(
    "--kube-namespace",
    metavar="NAMESPACE",
    default=DEFAULT_NAMESPACE,
    show_default=True,
    help="Where that control plane runs.",
)
@click.option(
    "--control",
    metavar="HOST:PORT",
    help="Ask that control plane of a cluster at its own address, with the token of --kube-context, of"
    " TRIMTAB_TOKEN, or of the pod that this runs in.",
)
@click.option(
    "--control-ca",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The authority of its certificate.",
)
@click.option(
    "--control-name", metavar="NAME", default="", help="For whom its certificate is, if not for HOST."
)
@click.pass_context
def cli(
    context: click.Context,
    kube_context: str | None,
    kube_namespace: str,
    control: str | None,
    control_ca: Path | None,
    control_name: str,
) -> None:
    """Serve models behind Envoy: bring a model and a concurrency range, trimtab tunes the rest."""
    if control is not None:
        if control_ca is None:
            hint = "the ca.crt of the ConfigMap trimtab-control-ca: without it anybody could take your token"
            raise InvalidInput("is missing", where="--control-ca", hint=hint)
        context.obj = Direct(control, control_ca, control_name, kube_context)
    elif kube_context is not None:
        context.obj = Cluster(kube_context, kube_namespace)
    if context.obj is not None:
        option = "--control" if control is not None else "--kube-context"
        if context.invoked_subcommand not in OF_A_CLUSTER:
            hint = f"it is for a machine of your own; of a cluster: {', '.join(OF_A_CLUSTER)}"
            raise InvalidInput(f"does not go with `{context.invoked_subcommand}`", where=option, hint=hint)


for command in (
    serve.up,
    deploy.deploy,
    deploy.apply,
    show.status,
    why.why,
    live.top,
    live.logs,
    show.history,
    deploy.rollback,
    deploy.delete,
    serve.down,
    serve.prune,
    doctor.doctor,
    simulate.simulate,
    control_command.control,
):
    cli.add_command(command)


def main() -> None:
    """The console script `trimtab`."""
    cli.main(prog_name="trimtab")
