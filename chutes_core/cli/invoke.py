"""`chutes invoke`: call a cord of a deployed chute through the validator.

The chute is named by its name, id or slug, the cord by its function or its path. Invariant: the
invocation's id is always shown, on failure too, since it is what a report needs.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

import click
import httpx

from chutes_core.base.errors import Denied, Invalid, NotFound
from chutes_core.cli import session
from chutes_core.cli.options import json_option, note
from chutes_core.cli.records import quoted
from chutes_core.sdk.answers import broken_off
from chutes_core.sdk.client import ApiClient

INVOCATION_HEADER = "X-Chutes-InvocationID"
_READ_S = 600.0


@dataclass(frozen=True)
class Target:
    """Where a call goes; ``schema`` is the cord's input schema where it is known."""

    method: str
    path: str
    schema: dict[str, Any] | None = None
    sdk_call: bool = False


@click.command()
@click.argument("chute")
@click.argument("cord", required=False)
@click.argument("body", required=False, metavar="[JSON]")
@click.option("--text", default=None, help="Instead of JSON: the cord's one text.")
@click.option("--method", default=None, help="HTTP method, where it is not the cord's own.")
@click.option("--stream", is_flag=True, help="Print the answer as it comes.")
@click.option("--timeout", default=_READ_S, show_default=True, help="Longest silence in seconds.")
@json_option
def invoke(
    chute: str,
    cord: str | None,
    body: str | None,
    text: str | None,
    method: str | None,
    stream: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Call a cord of a deployed chute.

    CHUTE is its name, id or slug; CORD the function's name or the path (the only cord, by
    default); JSON the body, or - to read it from stdin.
    """
    given = _body(body)
    with session.management() as reader, session.calls() as client:
        target = find_target(reader, chute, cord, method, has_body=body is not None)
        if text is not None:
            given = {text_parameter(target.schema): text}
        content = _content(target, given)
        headers = {"Content-Type": "application/json"} if content is not None else {}
        answer = client.open_stream(
            target.method,
            target.path,
            purpose="chutes",
            content=content,
            headers=headers,
            read_s=timeout,
        )
        try:
            _print(answer, stream=stream, as_json=as_json)
        except httpx.TransportError as error:
            raise broken_off(error, invocation_id=answer.headers.get(INVOCATION_HEADER)) from error
        finally:
            answer.close()


def find_target(
    client: ApiClient, chute: str, cord: str | None, method: str | None, *, has_body: bool
) -> Target:
    """Return where the call goes.

    A key that may only call cannot read the chute: then ``chute`` must be the slug and ``cord``
    the public path.

    Raises:
        NotFound: ``no_such_cord``. Invalid: ``which_cord``.
    """
    try:
        record = client.call("GET", f"/chutes/{quoted(chute)}", purpose="chutes")
    except (NotFound, Denied) as error:
        if cord is None or not cord.startswith("/"):
            raise error
        return Target(method or ("POST" if has_body else "GET"), f"/c/{quoted(chute)}{cord}")
    found = choose_cord(record.get("cords") or [], cord)
    public = found.get("public_api_path")
    if public is not None:
        verb = method or found.get("public_api_method") or "POST"
        return Target(verb, f"/c/{record['slug']}{public}", found.get("input_schema"))
    path = f"/chutes/{record['chute_id']}{found['path']}"
    return Target("POST", path, found.get("input_schema"), sdk_call=True)


def choose_cord(cords: list[dict[str, Any]], wanted: str | None) -> dict[str, Any]:
    """Return the cord of that function or path; the only one where none is named.

    Raises:
        NotFound: ``no_such_cord``. Invalid: ``which_cord``.
    """
    names = ", ".join(str(cord["function"]) for cord in cords)
    if wanted is None:
        if len(cords) != 1:
            raise Invalid("which_cord", "the chute has several cords", hint=f"name one: {names}")
        return cords[0]
    for cord in cords:
        if wanted in (cord["function"], cord.get("public_api_path"), cord["path"]):
            return cord
    raise NotFound("no_such_cord", f"the chute has no cord {wanted!r}", hint=f"it has: {names}")


def text_parameter(schema: dict[str, Any] | None) -> str:
    """Return the name of the first required parameter that takes a text, else ``input``."""
    body = _body_schema(schema or {})
    properties, required = body.get("properties", {}), body.get("required", [])
    for name in [*required, *properties]:
        rule = properties.get(name, {})
        kinds = [rule, *rule.get("anyOf", []), *rule.get("oneOf", [])]
        if any(kind.get("type") == "string" for kind in kinds):
            return str(name)
    return "input"


def _body_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return what describes the plain body: the one model that is all of it, or the arguments."""
    rules = [rule for name, rule in schema.get("properties", {}).items() if name != "self"]
    if len(rules) == 1 and "$ref" in rules[0]:
        named = rules[0]["$ref"].rsplit("/", 1)[-1]
        found = schema.get("definitions", {}).get(named, {})
        return dict(found)
    return schema


def _body(body: str | None) -> Any:
    if body is None:
        return None
    try:
        return json.loads(sys.stdin.read() if body == "-" else body)
    except ValueError as error:
        raise Invalid(
            "bad_json",
            f"the body is no JSON: {error}",
            hint='quote it for the shell: \'{"text": "hi"}\', or use --text hi',
        ) from error


def _content(target: Target, given: Any) -> bytes | None:
    if target.sdk_call:
        if given is not None and not isinstance(given, dict):
            raise Invalid(
                "bad_json",
                "this cord takes a JSON object of its parameters",
                hint="chutes chutes get shows them in input_schema",
            )
        return json.dumps({"args": [], "kwargs": given or {}}).encode()
    if given is None:
        return None if target.method == "GET" else b"{}"
    return json.dumps(given).encode()


def _print(answer: httpx.Response, *, stream: bool, as_json: bool) -> None:
    invocation = answer.headers.get(INVOCATION_HEADER)
    if not as_json:
        note(f"invocation {invocation}")
    if stream and not as_json:
        for chunk in answer.iter_text():
            click.echo(chunk, nl=False)
        return
    answer.read()
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    if as_json:
        document = {"invocation_id": invocation, "status": answer.status_code}
        document |= {"body": answer.json()} if is_json else {"text": answer.text}
        click.echo(json.dumps(document))
    elif is_json or answer.headers.get("content-type", "").startswith("text/"):
        click.echo(answer.text)
    else:
        sys.stdout.buffer.write(answer.content)
