"""`chutes status` and `chutes logs`: where a chute stands, and what its instances print.

Invariant: with --json each line of `logs` and each change under `status --watch` is one document.
"""

import json
import time
from typing import Any

import click

from chutes_core.base.errors import NotFound
from chutes_core.cli import session
from chutes_core.cli.buildlog import LogReader
from chutes_core.cli.options import emit, json_option, note, pairs, table
from chutes_core.cli.records import quoted
from chutes_core.sdk.client import ApiClient

WATCH_S = 2.0
BUILD_S = 7200.0
GLANCE_S = 5.0  # what is there is read by then, whatever the build does
_SHOWN = ("name", "version", "slug", "phase", "reason", "hot", "instances")


@click.command()
@click.argument("chute")
@click.option("--watch", is_flag=True, help="Go on until the chute is hot, and tell each change.")
@json_option
def status(chute: str, watch: bool, as_json: bool) -> None:
    """Show a chute's phase, its reason and its instances."""
    told = ""
    with session.management() as client:
        while True:
            now = look(client, chute)
            text = json.dumps(now) if as_json else _text(now)
            if text != told:
                click.echo(text)
            told = text
            if not watch or now["phase"] == "hot":
                return
            time.sleep(WATCH_S)


@click.command()
@click.argument("target", metavar="CHUTE|IMAGE")
@click.option("--instance", help="Of this instance; default: the newest of the chute.")
@click.option("--image", "of_image", is_flag=True, help="The build log of an image.")
@click.option("--backfill", default=100, show_default=True, help="Lines from before.")
@click.option("--follow/--no-follow", "go_on", default=True, help="Go on while it lives.")
@json_option
def logs(
    target: str, instance: str | None, of_image: bool, backfill: int, go_on: bool, as_json: bool
) -> None:
    """Print what an instance of a chute prints, or the build log of an image (user/name:tag)."""
    with session.management() as client:
        if of_image or ":" in target:
            build_log(client, target, go_on=go_on, as_json=as_json)
            return
        wanted = instance or newest(client, target)
        note(f"instance {wanted}")
        follow(client, wanted, backfill=backfill, go_on=go_on, as_json=as_json)


def follow(
    client: ApiClient, instance_id: str, *, backfill: int, go_on: bool, as_json: bool
) -> None:
    """Print an instance's log, line by line."""
    params: dict[str, str | int | bool] = {"backfill": backfill, "follow": str(go_on).lower()}
    path = f"/instances/{quoted(instance_id)}/logs"
    for line in client.lines(path, purpose="logs", params=params):
        if line.startswith("data:"):
            event = json.loads(line.removeprefix("data:"))
            emit(event, as_json=as_json, text=str(event.get("log", "")))


def build_log(client: ApiClient, image: str, *, go_on: bool, as_json: bool) -> None:
    """Print an image's build log: to the end of the build, or what there is now."""
    record = client.call("GET", f"/images/{quoted(image)}", purpose="images")
    reader = LogReader(
        client,
        str(record["image_id"]),
        lambda line: emit({"log": line}, as_json=as_json, text=line),
    )
    reader.follow(time.monotonic() + (BUILD_S if go_on else GLANCE_S))


def newest(client: ApiClient, chute: str) -> str:
    """Return the newest instance of a chute.

    Raises:
        NotFound: ``no_instance``.
    """
    return instances_of(client, chute)[-1]


def instances_of(client: ApiClient, chute: str) -> tuple[str, ...]:
    """Return the instances of a chute, the newest last.

    Raises:
        NotFound: ``no_instance``.
    """
    instances = look(client, chute)["instances"]
    if not instances:
        raise NotFound(
            "no_instance",
            f"{chute} has no instance now",
            hint=f"ask for one: chutes warmup {chute}",
        )
    return tuple(str(one["instance_id"]) for one in instances)


def look(client: ApiClient, chute: str) -> dict[str, Any]:
    """Return where a chute stands."""
    record = client.call("GET", f"/chutes/{quoted(chute)}", purpose="chutes")
    return {name: record[name] for name in _SHOWN}


def _text(now: dict[str, Any]) -> str:
    facts = (("chute", now["name"]), ("phase", now["phase"]), ("why", now["reason"] or None))
    rows = [
        (
            one["instance_id"],
            one["state"],
            one["gpu"],
            "newest" if one["version"] == now["version"] else "old version",
        )
        for one in now["instances"]
    ]
    parts = [pairs((*facts, ("version", now["version"])))]
    if rows:
        parts.append(table(rows, ("INSTANCE", "STATE", "GPU", "VERSION")))
    return "\n\n".join(parts)
