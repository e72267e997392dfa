"""control: the control plane of a Kubernetes cluster, as its pod runs it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from trimtab.cli.log import log_to_stderr
from trimtab.cli.options import home_option
from trimtab.cli.output import say
from trimtab.control.kubernetes.options import DEFAULT_CONTROL, DEFAULT_LISTEN, KubernetesOptions
from trimtab.control.options import Started
from trimtab.core.errors import InvalidInput


@click.command()
@home_option
@click.option(
    "--kubeconfig",
    metavar="FILE",
    envvar="KUBECONFIG",
    help="Which cluster.  [env: KUBECONFIG; default: the one we are a pod of]",
)
@click.option("--context", metavar="NAME", help="Which context of it.")
@click.option(
    "-n",
    "--namespace",
    metavar="NAMESPACE",
    default="",
    help="Serve the endpoints of this one.  [default: of all]",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default=DEFAULT_LISTEN,
    show_default=True,
    help="Where Envoys listen for callers.",
)
@click.option(
    "--public", metavar="HOST:PORT", default="", help="How callers reach them.  [default: as --listen]"
)
@click.option(
    "--domain",
    metavar="NAME",
    default="localhost",
    show_default=True,
    help="Endpoints answer to NAME.NAMESPACE.DOMAIN too.",
)
@click.option(
    "--api-keys",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Callers' keys, one `CLIENT KEY` a line.",
)
@click.option("--without-keys", is_flag=True, help="Let whoever reaches an Envoy call.")
@click.option(
    "--xds", metavar="HOST:PORT", default="", help="Where Envoys reach us, beside the socket in our home."
)
@click.option(
    "--xds-tls",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="With tls.crt, tls.key and ca.crt: only Envoys with a certificate of that authority are answered.",
)
@click.option("--xds-plaintext", is_flag=True, help="Without TLS; a NetworkPolicy keeps all but Envoys away.")
@click.option(
    "--advertise",
    metavar="HOST:PORT",
    default="",
    help="Where other control planes reach --xds while this one leads, so that they serve Envoys too.",
)
@click.option("--xds-name", metavar="NAME", default="", help="For which the certificates of all of them are.")
@click.option(
    "--callers-tls",
    metavar="FILE",
    default="",
    help="In Envoys' pods, as `python -m trimtab.envoy --callers-tls` writes it: callers come over TLS.",
)
@click.option(
    "--control",
    metavar="HOST:PORT",
    default=DEFAULT_CONTROL,
    show_default=True,
    help="Where the control API listens, beside the socket in our home; loopback only.",
)
@click.option(
    "--api",
    metavar="HOST:PORT",
    default="",
    help="Where the control API listens for whoever shows a token that the API server lets do it.",
)
@click.option(
    "--api-tls",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="With tls.crt, tls.key and ca.crt: what it shows them.",
)
@click.option(
    "--metrics-listen",
    metavar="HOST:PORT",
    default="127.0.0.1:0",
    show_default=True,
    help="Where our /metrics is.",
)
@click.option(
    "--dcgm", metavar="URL[,URL…]", default="", help="DCGM exporters that watch the GPUs of these pods."
)
@click.option(
    "--dcgm-pods",
    metavar="NAMESPACE",
    default="",
    help="Find them in this namespace by the labels of NVIDIA's charts, instead of --dcgm.",
)
@click.option(
    "--node-metrics/--no-node-metrics",
    default=True,
    show_default=True,
    help="Ask kubelets for the CPU and memory of pods; it takes the right to get nodes/proxy.",
)
@click.option(
    "--watch-nodes",
    is_flag=True,
    help="Replace pods of nodes that are about to go before they are evicted; takes the right to see nodes.",
)
@click.option(
    "--model-cache",
    metavar="URL",
    default="",
    help="Where pods reach the cache of their node (python -m trimtab.modelcache).  [default: there is none]",
)
@click.option(
    "--placeholder",
    "placeholders",
    metavar="NAMESPACE/DEPLOYMENT:max=N,cpu=Q[,memory=Q][,RESOURCE=N]",
    multiple=True,
    help="Keep room warm: set the count of this Deployment by recent growth, at most N; from small to large.",
)
@click.option(
    "--placeholder-lead",
    "placeholder_lead_s",
    metavar="SECONDS",
    type=float,
    default=120.0,
    show_default=True,
    help="What a new node takes until it holds pods.",
)
@click.option(
    "--placeholder-over",
    "placeholder_over_s",
    metavar="SECONDS",
    type=float,
    default=1800.0,
    show_default=True,
    help="How far to look back.",
)
@click.option(
    "--envoys",
    metavar="NAMESPACE/DEPLOYMENT:min=N,max=N",
    default="",
    help="Set the count of this Deployment of Envoys by how busy they are.  [default: somebody else does]",
)
@click.option(
    "--callers",
    metavar="NAMESPACE/LABEL=VALUE[,…]",
    default="",
    help="Pods that may reach the models': Envoys, and us.  [default: ours in the namespace trimtab]",
)
@click.option(
    "--lease",
    metavar="NAMESPACE/NAME",
    default="",
    help="Of several control planes the one that holds this Lease decides; the others follow it.",
)
@click.option(
    "--image",
    "images",
    metavar="RUNTIME=IMAGE",
    multiple=True,
    help="What pods of a runtime run, and `hold` beside them; may be given several times.",
)
@click.option(
    "--pull-secret",
    "pull_secrets",
    metavar="NAME",
    multiple=True,
    help="A Secret of each namespace, by which its pods' images are pulled; may be given several times.",
)
@click.option(
    "--topology-key",
    "topology_keys",
    metavar="LABEL",
    multiple=True,
    help="Spread pods over the values of this label, which every node has; may be given several times.  "
    "[default: kubernetes.io/hostname]",
)
def control(images: tuple[str, ...], **said: Any) -> None:
    """Run the control plane of a Kubernetes cluster: ServingEndpoints in, pods and Envoys' configuration out.

    It starts no Envoy, and ending it touches neither pods nor Envoys.
    """
    from trimtab.control.kubernetes.main import serve  # noqa: PLC0415 -- no other command needs all of that

    options = KubernetesOptions(images=dict(map(_image, images)), **said)
    log_to_stderr()
    asyncio.run(serve(options, _tell))


def _image(text: str) -> tuple[str, str]:
    runtime, _, image = text.partition("=")
    if not runtime or not image:
        hint = "write RUNTIME=IMAGE, for example mlflow=registry/trimtab-runtime:1"
        raise InvalidInput(f"`{text}` names no image", where="--image", hint=hint)
    return runtime, image


def _tell(started: Started) -> None:
    say(f"trimtab serves ServingEndpoints; its metrics are at http://{started.metrics_listen}/metrics")
