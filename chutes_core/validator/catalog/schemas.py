"""What the schemas of a chute's cords may look like before anything reads them.

Path: deploy -> rules -> here. Clients and docs pages walk these schemas, follow their `$ref`s and
unfold them; so depth, count and references are bounded here. Invariants: a reference points into
its own schema, never elsewhere; what the schema unfolds to, each reference put in place, is
bounded in depth and in size; and finding that out takes time in proportion to the schema itself,
because the size of what a reference stands for is counted once.
"""

from dataclasses import dataclass, field
from typing import Any

from chutes_core.base.errors import Invalid, TooLarge

MAX_DEPTH = 64
MAX_UNFOLDED_DEPTH = 200
MAX_UNFOLDED = 100_000
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_MAPS = ("properties", "patternProperties", "dependentSchemas")
_NOT_IN_PLACE = ("$defs", "definitions")
_DATA = ("const", "default", "enum", "example", "examples")


def check_schema(schema: dict[str, Any], where: str) -> None:
    """Check one schema.

    Args:
        schema: JSON Schema as a cord declares it.
        where: for the error's text, e.g. ``input_schema of cord say``.

    Raises:
        TooLarge: ``schema_too_deep`` or ``schemas_too_large``.
        Invalid: ``bad_schema_ref``.
    """
    _check_depth(schema, where)
    _Unfolding(schema, where).schema(schema, 0)


def _check_depth(schema: dict[str, Any], where: str) -> None:
    """Walk by a list, not by calls of calls: no depth ends it."""
    todo: list[tuple[Any, int]] = [(schema, 1)]
    while todo:
        node, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise TooLarge("schema_too_deep", f"the {where} is nested over {MAX_DEPTH} deep")
        if isinstance(node, dict):
            todo += [(value, depth + 1) for value in node.values()]
        elif isinstance(node, list):
            todo += [(value, depth + 1) for value in node]


@dataclass
class _Unfolding:
    """Counts the parts of a schema as it is once its references are put in place."""

    root: dict[str, Any]
    where: str
    sizes: dict[str, int] = field(default_factory=dict)

    def schema(self, node: Any, depth: int) -> int:
        """Return how many parts a schema has, unfolded; ``depth`` bounds the calls, too."""
        if depth > MAX_UNFOLDED_DEPTH:
            raise TooLarge("schema_too_deep", f"the references of the {self.where} lead too deep")
        total = 1
        if isinstance(node, list):
            for one in node:
                total += self.schema(one, depth + 1)
        elif isinstance(node, dict):
            for name, value in node.items():
                total += self._keyword(name, value, depth)
        if total > MAX_UNFOLDED:
            raise TooLarge(
                "schemas_too_large", f"the {self.where} unfolds to over {MAX_UNFOLDED} parts"
            )
        return total

    def _keyword(self, name: str, value: Any, depth: int) -> int:
        if name in _REFERENCES and isinstance(value, str):
            return self._referred(value, depth)
        if name in _DATA or name in _NOT_IN_PLACE:
            return 1
        if name in _MAPS and isinstance(value, dict):
            return 1 + sum(self.schema(one, depth + 2) for one in list(value.values()))
        return self.schema(value, depth + 1)

    def _referred(self, reference: str, depth: int) -> int:
        """Return the size of what a reference stands for; a way back to itself counts as one."""
        if reference not in self.sizes:
            self.sizes[reference] = 1
            self.sizes[reference] = self.schema(self._target(reference), depth + 1)
        return self.sizes[reference]

    def _target(self, reference: str) -> Any:
        """Return what a reference points to; nothing where there is none, which harms nobody."""
        if reference != "#" and not reference.startswith("#/"):
            raise Invalid("bad_schema_ref", f"the {self.where} refers to {reference[:100]!r}")
        node: Any = self.root
        for part in reference.split("/")[1:]:
            node = (
                node.get(part.replace("~1", "/").replace("~0", "~"))
                if isinstance(node, dict)
                else None
            )
        return node
