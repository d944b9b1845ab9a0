"""As servers of the Model Context Protocol and people write them."""

from __future__ import annotations

from support.api.tool_schemas import NULL, B, Case, I, N, S, array, enum, obj, one_string, ref, shut

EMPTY = {"type": "object", "properties": {}}
FILTER = {
    "anyOf": [
        obj("field op value", field=S, op=enum("eq", "lt"), value={}),
        obj("and", **{"and": array(ref("filter"))}),
    ]
}
EDIT = obj("oldText newText", oldText=S, newText=S)
RETRY = {
    "if": {"properties": {"retry": {"const": True}}, "required": ["retry"]},
    "then": {"required": ["count"]},
}

CASES = {
    "mcp no arguments": Case(EMPTY, {}, []),
    "mcp no arguments, closed": Case({**EMPTY, "additionalProperties": False}, {}, {"a": 1}),
    "mcp only a type": Case({"type": "object"}, {"a": 1}, 3),
    "mcp read file": Case(
        obj("path", path={"type": "string", "description": "Absolute path"}, head=N, tail=N),
        {"path": "/a"},
        {"head": 1},
    ),
    "mcp edit file": Case(
        shut("path edits", path=S, edits=array(EDIT), dryRun={"type": "boolean", "default": False}),
        {"path": "a", "edits": [{"oldText": "x", "newText": "y"}]},
        {"path": "a"},
    ),
    "mcp search": Case(
        obj("query", query=S, limit={"type": "integer", "minimum": 1, "maximum": 100, "default": 10}),
        {"query": "x", "limit": 100},
        {"query": "x", "limit": 101},
    ),
    "mcp create issue": Case(
        obj("owner title", owner=S, title=S, labels=array(S), assignee={"type": ["string", "null"]}),
        {"owner": "a", "title": "b", "assignee": None},
        {"owner": "a"},
    ),
    "mcp entities": Case(
        obj("entities", entities=array(obj("name observations", name=S, observations=array(S)))),
        {"entities": [{"name": "a", "observations": []}]},
        {"entities": [{}]},
    ),
    "mcp thought": Case(
        obj("thought n", thought=S, n={"type": "integer", "minimum": 1}, isRevision=B),
        {"thought": "x", "n": 1},
        {"thought": "x", "n": 0},
    ),
    "mcp coordinates": Case(
        obj(
            "lat lon",
            lat={"type": "number", "minimum": -90, "maximum": 90},
            lon={"type": "number", "minimum": -180, "maximum": 180},
        ),
        {"lat": -33.5, "lon": 151.25},
        {"lat": 91, "lon": 0},
    ),
    "mcp time zone": Case(
        obj("source time", source=S, time={"type": "string", "pattern": "^([01]\\d|2[0-3]):[0-5]\\d$"}),
        {"source": "UTC", "time": "23:59"},
        {"source": "UTC", "time": "24:00"},
    ),
    "mcp browser": Case(
        obj("action", action=enum("click", "type"), selector=S, options={"type": "object"}),
        {"action": "click", "options": {"x": [1]}},
        {"action": "scroll"},
    ),
    "mcp sql parameters": Case(
        obj("sql", sql=S, params=array({"type": ["string", "number", "boolean", "null"]})),
        {"sql": "x", "params": [1, None, "a"]},
        {"sql": "x", "params": [[]]},
    ),
    "mcp headers": Case(
        obj(
            "url",
            url={"type": "string", "format": "uri"},
            headers={"type": "object", "additionalProperties": S},
        ),
        {"url": "http://a/", "headers": {"A": "b"}},
        {"url": "http://a/", "headers": {"A": 1}},
    ),
    "mcp union of targets": Case(
        obj("target", target={"oneOf": [obj("id", id=I), obj("name", name=S)]}),
        {"target": {"name": "x"}},
        {"target": {"id": 1, "name": "x"}},
    ),
    "mcp progress token": Case(
        obj("", _meta=obj("", progressToken={"type": ["string", "integer"]})),
        {"_meta": {"progressToken": 3}},
        {"_meta": {"progressToken": 1.5}},
    ),
    "mcp elicitation": Case(
        obj("ok", ok={"type": "boolean", "title": "OK?"}, size=enum("s", "m", enumNames=["Small", "Medium"])),
        {"ok": True, "size": "s"},
        {"ok": "yes"},
    ),
    "mcp annotations inside": Case(
        {
            **obj("a", a=S),
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "annotations": {"title": "x"},
        },
        {"a": "x"},
        {},
    ),
    "weather": Case(
        obj(
            "location",
            location={"type": "string", "description": "The city, e.g. San Francisco, CA"},
            unit=enum("celsius", "fahrenheit", type="string"),
        ),
        {"location": "Paris", "unit": "celsius"},
        {"location": "Paris", "unit": "kelvin"},
    ),
    "required in the property": Case(
        {"type": "object", "properties": {"a": {"type": "string", "required": True}}}, refused=""
    ),
    "type any": Case(obj("a", a={"type": "any"}), refused="type: 'any' is not one of null, boolean, integer"),
    "type str": Case(obj("a", a={"type": "str"}), refused="type: 'str' is not one of"),
    "type in capitals": Case(obj("a", a={"type": "STRING"}), refused="type: 'STRING' is not one of"),
    "enum without type": Case(obj("a", a=enum("x", "y")), {"a": "x"}, {"a": 1}),
    "enum against the type": Case(obj("a", a=enum("1", "2", type="integer")), refused="nothing matches it"),
    "bounds as strings": Case(
        obj("a", a={"type": "integer", "minimum": "1"}), refused="properties.a: minimum must be a number"
    ),
    "array without items": Case(obj("a", a={"type": "array"}), {"a": [1, "x"]}, {"a": "x"}),
    "list of types": Case({"type": ["object", "array"], "items": S, "properties": {"a": I}}, ["x"], [1]),
    "string or list": Case(obj("a", a={"anyOf": [S, array(S)]}), {"a": ["x"]}, {"a": [1]}),
    "recursive filter": Case(
        {**ref("filter"), "$defs": {"filter": FILTER}},
        {"and": [{"field": "a", "op": "eq", "value": None}]},
        {"and": [{"field": "a"}]},
    ),
    "condition on a constant": Case(
        obj(
            "kind",
            {
                "if": {"properties": {"kind": {"const": "a"}}},
                "then": {"required": ["x"]},
                "else": {"required": ["y"]},
            },
            kind=enum("a", "b"),
            x=I,
            y=I,
        ),
        {"kind": "b", "y": 1},
        {"kind": "a", "y": 1},
    ),
    "condition on a flag": Case(
        obj("", RETRY, retry=B, count=I), {"retry": True, "count": 2}, {"retry": True}
    ),
    "several conditions": Case(
        obj(
            "k",
            {
                "allOf": [
                    {"if": {"properties": {"k": {"const": v}}}, "then": {"required": [v]}} for v in ("a", "b")
                ]
            },
            k=enum("a", "b"),
            a=I,
            b=I,
        ),
        {"k": "a", "a": 1},
        refused="",
    ),
    "condition on a free string": Case(
        obj("k", {"if": {"properties": {"k": {"const": "a"}}}, "then": {"required": ["x"]}}, k=S, x=I),
        refused="if with a condition",
    ),
    "dependent required": Case(
        obj("", {"dependentRequired": {"card": ["address"]}}, card=S, address=S),
        {"card": "1", "address": "a"},
        {"card": "1"},
    ),
    "dependent schemas": Case(
        shut("", {"dependentSchemas": {"a": {"required": ["b"]}}}, a=I, b=I), {"a": 1, "b": 2}, {"a": 1}
    ),
    "draft 7 dependencies": Case(obj("", {"dependencies": {"a": ["b"]}}, a=I, b=I), {"b": 1}, {"a": 1}),
    "not a value": Case(obj("a", a={"enum": ["x", "y", "z"], "not": {"const": "y"}}), {"a": "z"}, {"a": "y"}),
    "not null": Case(obj("a", a={"not": {"type": "null"}}), {"a": [1]}, {"a": None}),
    "not with a pattern": Case(
        obj("a", a={"type": "string", "not": {"pattern": "x"}}), refused="properties.a: not but for"
    ),
    "not both": Case(obj("", {"not": {"required": ["a", "b"]}}, a=I, b=I), {"a": 1}, {"a": 1, "b": 2}),
    "contains": Case(array(I, contains={"const": 1}), refused="contains is not supported"),
    "unique strings": Case(
        obj("t", t=array(S, uniqueItems=True, minItems=1)), refused="properties.t: uniqueItems"
    ),
    "unique of one": Case(array(S, uniqueItems=True, maxItems=1), ["a"], ["a", "b"]),
    "unique booleans": Case(array(B, uniqueItems=True), [True, False], [True, True]),
    "pattern properties": Case(
        {"type": "object", "patternProperties": {"^S_": S, "^I_": I}, "additionalProperties": False},
        {"S_a": "x", "I_b": 1},
        {"S_a": 1},
    ),
    "pattern covers a listed name": Case(
        shut("", {"patternProperties": {"^a$": {"minimum": 3}}}, a=I), {"a": 3}, {"a": 2}
    ),
    "pattern of one name": Case(
        {
            "type": "object",
            "patternProperties": {"^k1$": {}},
            "minProperties": 2,
            "additionalProperties": False,
        },
        refused="nothing matches it",
    ),
    "pattern properties and others": Case(
        {"type": "object", "patternProperties": {"^x-": S}, "additionalProperties": I},
        {"x-a": "b", "c": 1},
        {"x-a": 1},
    ),
    "patterns that overlap": Case(
        {"type": "object", "patternProperties": {"^a": S, "b$": I}}, refused="may match the same name"
    ),
    "dates as names": Case(
        {"type": "object", "patternProperties": {"^\\d{4}-\\d{2}-\\d{2}$": N}, "additionalProperties": False},
        {"2024-01-02": 1.5},
        {"today": 1},
    ),
    "languages as names": Case(
        {
            "type": "object",
            "patternProperties": {"^(en|de|fr)$": S},
            "additionalProperties": False,
            "minProperties": 1,
        },
        {"en": "x", "fr": "y"},
        {"it": "x"},
    ),
    "property names in snake case": Case(
        {"type": "object", "propertyNames": {"pattern": "^[a-z_]+$"}, "additionalProperties": True},
        {"a_b": 1},
        {"A": 1},
    ),
    "exact price": Case(obj("p", p={"const": 19.99}), {"p": 19.99}, {"p": 20}),
    "empty enum": Case(obj("a", a=enum()), refused="nothing matches it"),
    "required but not listed": Case(
        {"type": "object", "properties": {"a": S}, "required": ["a", "b"]}, {"a": "x", "b": [1]}, {"a": "x"}
    ),
    "false as a property": Case(obj("a", a=S, b=False), {"a": "x"}, {"a": "x", "b": 1}),
    "true as a property": Case(obj("a", a=True), {"a": None}, {}),
    "null only": Case(NULL, None, 0),
    "nested to nine levels": Case(
        obj("a", a=obj("b", b=obj("c", c=obj("d", d=array(obj("e", e=array(I))))))),
        {"a": {"b": {"c": {"d": [{"e": [1]}]}}}},
        {"a": {"b": {}}},
    ),
    "names with quotes and spaces": Case(
        {
            "type": "object",
            "properties": {'a "b"\n': I, "ä ö": S},
            "required": ['a "b"\n', "ä ö"],
            "additionalProperties": False,
        },
        {'a "b"\n': 1, "ä ö": "é"},
        {"ä ö": "é"},
    ),
    "strings of odd characters": Case(enum('"', "\\", "\u0000", "\u007f", "😀", "</tool_call>"), "😀", "x"),
    "steps with constants": Case(
        obj(
            "steps",
            steps=array(
                {"anyOf": [obj("do url", do=one_string("open"), url=S), obj("do", do=one_string("close"))]},
                minItems=1,
            ),
        ),
        {"steps": [{"do": "close"}]},
        {"steps": [{"do": "open"}]},
    ),
    "large enum": Case(enum(*(f"city {i}" for i in range(300))), "city 7", "city 300"),
    "many optional properties": Case(
        obj("", **{f"p{i}": I for i in range(40)}), {"p3": 1, "p39": 2}, {"p3": "x"}
    ),
    "max length": Case(obj("a", a={"type": "string", "maxLength": 4000}), {"a": "x"}, {"a": 1}),
    "huge number of items": Case(array(B, minItems=2, maxItems=1000), [True, False], [True]),
}
