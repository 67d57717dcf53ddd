"""Finding one's way in a JSON Schema: through references and unions, and the keys at a path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def branches(root: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schemas that a reference into `root` or a union stands for; the schema itself if it is neither."""
    if "$ref" in schema:
        yield from branches(root, root["$defs"][schema["$ref"].rpartition("/")[2]])
        return
    union = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    for branch in union:
        yield from branches(root, branch)
    if not union:
        yield schema


def keys_at(schema: Mapping[str, Any], path: Sequence[str | int]) -> list[str]:
    """The keys that a value of the schema may have at `path`; none where that is no mapping of fixed keys."""
    return list(dict.fromkeys(_keys_at(schema, schema, list(path))))


def _keys_at(root: Mapping[str, Any], schema: Mapping[str, Any], path: list[str | int]) -> Iterator[str]:
    for branch in branches(root, schema):
        properties = branch.get("properties", {})
        if not path:
            yield from properties
            continue
        part, rest = path[0], path[1:]
        if part in properties:
            yield from _keys_at(root, properties[part], rest)
        elif isinstance(part, int) and isinstance(branch.get("items"), dict):
            yield from _keys_at(root, branch["items"], rest)
        elif isinstance(branch.get("additionalProperties"), dict):
            yield from _keys_at(root, branch["additionalProperties"], rest)
        elif isinstance(part, str):
            yield from _keys_at(root, branch, rest)  # pydantic's name for a branch of a union
