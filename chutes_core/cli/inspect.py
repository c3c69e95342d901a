"""`chutes inspect module:chute`: what a chute file amounts to, without a server."""

from typing import Any

import click

from chutes_core.cli.options import emit, json_option, pairs, table
from chutes_core.sdk.loader import load_file
from chutes_core.sdk.manifest import inspection


@click.command()
@click.argument("chute_ref", metavar="MODULE:CHUTE")
@json_option
def inspect(chute_ref: str, as_json: bool) -> None:
    """Show ids, Dockerfile, node selector, cords, paths, methods and schemas of a chute file."""
    source, chute = load_file(chute_ref)
    document = inspection(chute, source)
    emit(document, as_json=as_json, text=_text(document))


def _text(document: dict[str, Any]) -> str:
    cords = [
        (
            cord["function"],
            f"{cord['method']} {cord['path']}",
            f"{cord['public_api_method']} {cord['public_api_path']}"
            if cord["public_api_path"]
            else "-",
            "stream" if cord["stream"] else "",
        )
        for cord in document["cords"]
    ]
    selector = document["node_selector"]
    head = pairs(
        (
            ("chute", f"{document['username']}/{document['name']}"),
            ("chute id", document["chute_id"]),
            ("version", document["version"]),
            ("slug", document["slug"]),
            ("image", document["image"]["name"]),
            ("image id", document["image"]["image_id"]),
            ("GPUs", f"{selector['gpu_count']} x {selector['min_vram_gb_per_gpu']} GB or more"),
            ("fits", ", ".join(document["supported_gpus"]) or "no GPU that is known here"),
        )
    )
    parts = [head, table(cords, ("CORD", "PATH", "PUBLIC", ""))]
    if document["image"]["dockerfile"]:
        parts.append(document["image"]["dockerfile"])
    return "\n\n".join(parts)
