"""`chutes build module:chute`: send an image to the validator, and follow its build.

Invariant: with --wait the command ends only when the image is built (0) or the build has failed
(1); a broken log connection is taken up again where it ended.
"""

import time
from pathlib import Path
from typing import Any

import click

from chutes_core.base.errors import ChutesError, Conflict, Invalid, TimedOut
from chutes_core.cli import context, session
from chutes_core.cli.buildlog import LogReader
from chutes_core.cli.options import emit, json_option, note, pairs
from chutes_core.sdk.client import ApiClient
from chutes_core.sdk.image import Image
from chutes_core.sdk.loader import load_chute

BUILT = "built and pushed"
_POLL_S = 1.0


@click.command()
@click.argument("chute_ref", metavar="MODULE:CHUTE")
@click.option("--wait", is_flag=True, help="Follow the build to its end.")
@click.option("--public", is_flag=True, help="Everybody may use the image.")
@click.option("--include-cwd", is_flag=True, help="Send all files of this folder.")
@click.option("--timeout", default=3600, show_default=True, help="Longest wait in seconds.")
@click.option("--debug", is_flag=True, help="Print the Dockerfile and the files that are sent.")
@json_option
def build(
    chute_ref: str,
    wait: bool,
    public: bool,
    include_cwd: bool,
    timeout: int,
    debug: bool,
    as_json: bool,
) -> None:
    """Build the image of a chute on the validator."""
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
    with session.management() as client:
        answer = _upload(client, image, files, public=public, wait=wait)
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


def _upload(
    client: ApiClient, image: Image, files: dict[str, Path], *, public: bool, wait: bool
) -> dict[str, Any]:
    fields = {
        "username": image.username,
        "name": image.name,
        "tag": image.tag,
        "readme": image.readme,
        "dockerfile": str(image),
        "public": str(public),
        "logo_id": "__none__",
        "wait": str(wait),
    }
    zipped = context.pack(files)
    note(f"sending {image.full_name}: {len(files)} files, {len(zipped)} bytes")
    archive = {"build_context": ("context.zip", zipped, "application/zip")}
    try:
        answer: dict[str, Any] = client.upload("/images/", fields, archive)
    except ChutesError as error:
        if error.code == "image_exists" and not error.hint:
            error.hint = "give the image another tag"
        raise
    return answer
