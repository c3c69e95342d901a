"""`chutes build module:chute`: send an image to the validator, and follow its build.

Invariant: with --wait the command ends only when the image is built (0) or the build has failed
(1); a broken log connection is taken up again where it ended.
"""

import time
from pathlib import Path
from typing import Any

import click

from chutes_core.base.errors import ChutesError, Conflict, Invalid, TimedOut
from chutes_core.cli import context, localbuild, logos, session
from chutes_core.cli.buildlog import LogReader
from chutes_core.cli.options import emit, is_quiet, json_option, note, pairs, progress
from chutes_core.sdk.client import ApiClient
from chutes_core.sdk.image import Image
from chutes_core.sdk.loader import load_chute

BUILT = "built and pushed"
_POLL_S = 1.0


@click.command()
@click.argument("chute_ref", metavar="MODULE:CHUTE")
@click.option("--local/--no-local", help="Build with this machine's Docker; send nothing.")
@click.option("--wait/--no-wait", help="Follow the build to its end.")
@click.option("--public/--no-public", help="Everybody may use the image.")
@click.option("--include-cwd/--no-include-cwd", help="Send all files of this folder.")
@click.option("--logo", default=None, help="A picture's file, or the id of an uploaded one.")
@click.option("--timeout", default=3600, show_default=True, help="Longest wait in seconds.")
@click.option("--debug/--no-debug", help="Print the Dockerfile and the files that are sent.")
@json_option
def build(
    chute_ref: str,
    local: bool,
    wait: bool,
    public: bool,
    include_cwd: bool,
    logo: str | None,
    timeout: int,
    debug: bool,
    as_json: bool,
) -> None:
    """Build the image of a chute, on the validator or here."""
    chute = load_chute(chute_ref)
    image = chute.image
    if not isinstance(image, Image):
        raise Invalid(
            "nothing_to_build",
            f"the chute runs on {image!r}, which is built already",
            hint="go on with `chutes deploy`",
        )
    files = context.collect(image, Path.cwd(), include_cwd=include_cwd)
    if debug:
        note(f"{image}\n" + "".join(f"context: {name}\n" for name in sorted(files)))
    image.dockerfile()  # what no builder takes is told before anything is sent
    if local:
        _build_here(image, files, chute_ref, as_json=as_json)
        return
    with session.management() as client:
        logo_id = logos.resolve(client, logo)
        answer = _upload(client, image, files, public=public, wait=wait, logo_id=logo_id)
        image_id = answer["image_id"]
        if wait:
            answer = wait_until_built(client, image_id, timeout_s=timeout)
    status = answer.get("status", "pending build")
    text = pairs((("image", image.full_name), ("image id", image_id), ("status", status)))
    emit({"name": image.full_name, **answer}, as_json=as_json, text=text)


def wait_until_built(client: ApiClient, image_id: str, *, timeout_s: float) -> dict[str, Any]:
    """Print the build log to stderr until the build ends; return the image.

    Raises:
        Conflict: ``build_failed``. TimedOut: ``build_too_slow``.
    """
    deadline = time.monotonic() + timeout_s
    reader = LogReader(client, image_id, note)
    while True:
        reader.follow(deadline)
        image: dict[str, Any] = client.call("GET", f"/images/{image_id}", purpose="images")
        status = str(image.get("status", ""))
        if status == BUILT:
            return image
        if status.startswith("error"):
            raise Conflict(
                "build_failed",
                f"the build failed: {status.partition(':')[2].strip() or status}",
                hint="the log above says where",
                http_status=200,
                image_id=image_id,
            )
        if time.monotonic() > deadline:
            raise TimedOut(
                "build_too_slow",
                f"the image is not built after {timeout_s:.0f} s ({status})",
                hint=f"look again: chutes images get {image_id}",
                http_status=200,
            )
        time.sleep(_POLL_S)


def _build_here(image: Image, files: dict[str, Path], chute_ref: str, *, as_json: bool) -> None:
    made = localbuild.build_locally(image, files, quiet=is_quiet())
    command = made.run_command(chute_ref)
    document = {"name": made.name, "dev_name": made.dev_name, "run": command}
    emit(document, as_json=as_json, text=f"built {made.name}; serve the chute in it:\n  {command}")


def _upload(
    client: ApiClient,
    image: Image,
    files: dict[str, Path],
    *,
    public: bool,
    wait: bool,
    logo_id: str | None,
) -> dict[str, Any]:
    fields = {
        "username": image.username,
        "name": image.name,
        "tag": image.tag,
        "readme": image.readme,
        "dockerfile": image.dockerfile(),
        "public": str(public),
        "logo_id": logo_id or "__none__",
        "wait": str(wait),
    }
    zipped = context.pack(files)
    note(f"sending {image.full_name}: {len(files)} files, {len(zipped)} bytes")
    archive = {"build_context": ("context.zip", zipped, "application/zip")}
    try:
        with progress("sending", len(zipped)) as sent:
            answer: dict[str, Any] = client.upload("/images/", fields, archive, sent=sent)
    except ChutesError as error:
        if error.code == "image_exists" and not error.hint:
            error.hint = "give the image another tag"
        raise
    return answer
