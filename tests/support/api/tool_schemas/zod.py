"""As zod 3 (with zod-to-json-schema) and zod 4 write them, and TypeBox."""

from __future__ import annotations

from support.api.tool_schemas import NULL, B, Case, I, N, S, array, enum, obj, one_string, shut

DRAFT7 = {"$schema": "http://json-schema.org/draft-07/schema#"}
DRAFT2020 = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
SAFE = {"minimum": -9007199254740991, "maximum": 9007199254740991}
CIRCLE = shut("kind radius", kind=one_string("circle"), radius=N)
SQUARE = shut("kind side", kind=one_string("square"), side=N)

CASES = {
    "zod3 object": Case({**shut("a", a=S, b=N), **DRAFT7}, {"a": "x", "b": 1.5}, {"b": 1}),
    "zod3 nullable": Case(shut("a", a={"type": ["string", "null"]}), {"a": None}, {"a": 1}),
    "zod3 nullable object": Case(shut("a", a={"anyOf": [shut("x", x=I), NULL]}), {"a": {"x": 1}}, {"a": {}}),
    "zod3 union of types": Case(
        shut("a", a={"type": ["string", "number", "boolean"]}), {"a": True}, {"a": None}
    ),
    "zod3 discriminated union": Case(
        shut("s", s={"anyOf": [CIRCLE, SQUARE]}),
        {"s": {"kind": "square", "side": 2}},
        {"s": {"kind": "square", "radius": 2}},
    ),
    "zod3 intersection": Case(
        {
            "allOf": [
                {"type": "object", "properties": {"a": S}, "required": ["a"]},
                {"type": "object", "properties": {"b": I}, "required": ["b"]},
            ],
            "unevaluatedProperties": False,
        },
        {"a": "x", "b": 1},
        {"a": "x", "b": 1, "c": 2},
    ),
    "zod3 record": Case(
        shut("r", r={"type": "object", "additionalProperties": N}), {"r": {"x": 1}}, {"r": {"x": "y"}}
    ),
    "zod3 record of enum": Case(
        shut("r", r={"type": "object", "additionalProperties": N, "propertyNames": enum("a", "b")}),
        {"r": {"b": 1}},
        {"r": {"c": 1}},
    ),
    "zod3 record of min strings": Case(
        shut("r", r={"type": "object", "additionalProperties": N, "propertyNames": {"minLength": 2}}),
        {"r": {"ab": 1}},
        {"r": {"a": 1}},
    ),
    "zod3 map": Case(
        shut("m", m=array({"type": "array", "items": [S, N], "minItems": 2, "maxItems": 2}, maxItems=125)),
        {"m": [["a", 1]]},
        {"m": [["a"]]},
    ),
    "zod3 set": Case(shut("s", s=array(S, uniqueItems=True)), refused="uniqueItems"),
    "zod3 tuple": Case(
        shut("t", t={"type": "array", "minItems": 2, "maxItems": 2, "items": [S, N]}),
        {"t": ["a", 1]},
        {"t": ["a", 1, 2]},
    ),
    "zod3 tuple with rest": Case(
        shut("t", t={"type": "array", "minItems": 1, "items": [S], "additionalItems": N}),
        {"t": ["a", 1, 2]},
        {"t": ["a", "b"]},
    ),
    "zod3 literal": Case(shut("l", l={"type": "string", "const": "yes"}), {"l": "yes"}, {"l": "no"}),
    "zod3 native enum": Case(shut("e", e=enum("A", 1, type=["string", "number"])), {"e": 1}, {"e": 2}),
    "zod3 int": Case(
        shut("n", n={"type": "integer", "minimum": 1, "exclusiveMaximum": 5}), {"n": 4}, {"n": 5}
    ),
    "zod3 draft 4 bounds": Case(
        shut("n", n={"type": "number", "minimum": 0, "exclusiveMinimum": True}), {"n": 1}
    ),
    "zod3 default": Case(shut(a={"type": "string", "default": "x"}), {}, {"a": 1}),
    "zod3 any": Case(shut(a={}), {"a": [1]}, {"b": 1}),
    "zod3 passthrough": Case(obj("a", {"additionalProperties": True}, a=S), {"a": "x", "z": 1}, {"z": 1}),
    "zod3 catchall": Case(
        obj("a", {"additionalProperties": I}, a=S), {"a": "x", "z": 1}, {"a": "x", "z": "y"}
    ),
    "zod3 references by path": Case(
        shut("a b", a=shut("x", x=I), b={"$ref": "#/properties/a"}),
        {"a": {"x": 1}, "b": {"x": 2}},
        {"a": {"x": 1}, "b": {}},
    ),
    "zod3 lazy": Case(shut("v", v=I, next={"$ref": "#"}), {"v": 1, "next": {"v": 2}}, {"v": 1, "next": {}}),
    "zod3 never": Case(shut("a", a=S, b={"not": {}}), {"a": "x"}, {"a": "x", "b": 1}),
    "zod3 formats": Case(
        shut("u e", u={"type": "string", "format": "uuid"}, e={"type": "string", "format": "email"}),
        {"u": "123e4567-e89b-12d3-a456-426614174000", "e": "a@b.c"},
        {"u": "x", "e": "a@b.c"},
    ),
    "zod3 cuid": Case(
        shut("c", c={"type": "string", "pattern": "^[cC][^\\s-]{8,}$"}), {"c": "cabcdefgh1"}, {"c": "x"}
    ),
    "zod3 date": Case(
        shut("d", d={"type": "string", "format": "date-time"}), {"d": "2024-01-01T00:00:00Z"}, {"d": ""}
    ),
    "zod3 bigint": Case(
        shut("b", b={"type": "integer", "format": "int64", "minimum": 9007199254740993}),
        {"b": 9007199254740993},
        {"b": 9007199254740992},
    ),
    "zod3 nested arrays": Case(shut("a", a=array(array(array(B)))), {"a": [[[True]]]}, {"a": [[1]]}),
    "zod3 array bounds": Case(
        shut("a", a=array(S, minItems=1, maxItems=2)), {"a": ["x"]}, {"a": ["x", "y", "z"]}
    ),
    "zod3 definitions": Case(
        {"$ref": "#/definitions/T", "definitions": {"T": shut("a", a=S)}, **DRAFT7}, {"a": "x"}, {}
    ),
    "zod3 multiple of": Case(shut("n", n={"type": "number", "multipleOf": 0.25}), {"n": 0.75}, {"n": 0.8}),
    "zod4 object": Case({**DRAFT2020, **shut("a b", a=S, b=B)}, {"a": "x", "b": True}, {"a": "x"}),
    "zod4 int": Case(
        shut("n", n={"type": "integer", **SAFE}), {"n": 9007199254740991}, {"n": 9007199254740992}
    ),
    "zod4 positive int": Case(
        shut("n", n={"type": "integer", "exclusiveMinimum": 0, "maximum": 9007199254740991}),
        {"n": 1},
        {"n": 0},
    ),
    "zod4 record": Case(
        {**DRAFT2020, "type": "object", "propertyNames": S, "additionalProperties": I}, {"a": 1}, {"a": "b"}
    ),
    "zod4 record of enum": Case(
        {
            **DRAFT2020,
            "type": "object",
            "propertyNames": enum("a", "b", type="string"),
            "additionalProperties": I,
            "required": ["a", "b"],
        },
        {"a": 1, "b": 2},
        {"a": 1},
    ),
    "zod4 partial record": Case(
        {"type": "object", "propertyNames": enum("a", "b", type="string"), "additionalProperties": I},
        {"b": 2},
        {"c": 2},
    ),
    "zod4 record of pattern": Case(
        {"type": "object", "propertyNames": {"type": "string", "pattern": "^x-"}, "additionalProperties": S},
        {"x-a": "b"},
        {"a": "b"},
    ),
    "zod4 nullable": Case(shut("a", a={"anyOf": [S, NULL]}), {"a": None}, {"a": 1}),
    "zod4 discriminated union": Case(
        {**DRAFT2020, "oneOf": [CIRCLE, SQUARE]},
        {"kind": "circle", "radius": 1},
        {"kind": "circle", "side": 1},
    ),
    "zod4 union": Case(shut("u", u={"anyOf": [S, N, array(S)]}), {"u": ["x"]}, {"u": None}),
    "zod4 xor": Case(shut("u", u={"oneOf": [S, N]}), {"u": 1.5}, {"u": True}),
    "zod4 email": Case(
        shut(
            "e",
            e={
                "type": "string",
                "format": "email",
                "pattern": "^[A-Za-z0-9_+.]+@[A-Za-z0-9]+\\.[A-Za-z]{2,}$",
            },
        ),
        {"e": "a.b@c.de"},
        {"e": "a@b"},
    ),
    "zod4 iso duration": Case(
        shut(
            "d",
            d={
                "type": "string",
                "format": "duration",
                "pattern": r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?"
                r"(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$",
            },
        ),
        {"d": "P1Y2M3DT4H5M6S"},
        {"d": "P1WT1H"},
    ),
    "zod4 url": Case(
        shut("u", u={"type": "string", "format": "uri"}), {"u": "http://a.b/c?d=e"}, {"u": "a b"}
    ),
    "zod4 iso date": Case(
        shut("d", d={"type": "string", "format": "date", "pattern": "^\\d{4}-\\d{2}-\\d{2}$"}),
        {"d": "2024-02-03"},
        {"d": "2024-13-03"},
    ),
    "zod4 tuple": Case(shut("t", t={"type": "array", "prefixItems": [S, N]}), {"t": ["a", 1]}, {"t": [1]}),
    "zod4 closed tuple": Case(
        shut("t", t={"type": "array", "prefixItems": [S, N], "items": False, "minItems": 2}),
        {"t": ["a", 1]},
        {"t": ["a", 1, 2]},
    ),
    "zod4 intersection": Case({"allOf": [obj("a", a=S), obj("b", b=S)]}, {"a": "x", "b": "y"}, {"a": "x"}),
    "zod4 recursive": Case(
        {**shut("name children", name=S, children=array({"$ref": "#"})), **DRAFT2020},
        {"name": "a", "children": [{"name": "b", "children": []}]},
        {"name": "a"},
    ),
    "zod4 defs": Case(
        {
            "$ref": "#/$defs/__schema0",
            "$defs": {"__schema0": shut("x", x={"anyOf": [{"$ref": "#/$defs/__schema0"}, NULL]})},
        },
        {"x": {"x": None}},
        {"x": 1},
    ),
    "zod4 ids": Case(
        {**shut("u", u={"$ref": "#/$defs/User"}), "$defs": {"User": {"id": "User", **shut("n", n=S)}}},
        {"u": {"n": "a"}},
        {"u": {}},
    ),
    "zod4 literals": Case(shut("l", l=enum("a", 1, None)), {"l": None}, {"l": "b"}),
    "zod4 template literal": Case(
        shut("l", l={"type": "string", "pattern": "^v(0|[1-9]\\d*)$"}), {"l": "v12"}, {"l": "v"}
    ),
    "zod4 readonly and meta": Case(
        shut(
            "a", a={"readOnly": True, "title": "A", "examples": ["x"], "deprecated": True, "type": "string"}
        ),
        {"a": "y"},
        {"a": 1},
    ),
    "zod4 looseObject": Case(obj("a", {"additionalProperties": {}}, a=S), {"a": "x", "b": None}, {"b": 1}),
    "zod4 base64": Case(
        shut("b", b={"type": "string", "format": "base64", "contentEncoding": "base64"}),
        {"b": "YQ=="},
        {"b": 1},
    ),
    "zod4 json": Case(
        {
            "$ref": "#/$defs/J",
            "$defs": {
                "J": {
                    "anyOf": [
                        S,
                        N,
                        B,
                        NULL,
                        array({"$ref": "#/$defs/J"}),
                        {"type": "object", "propertyNames": S, "additionalProperties": {"$ref": "#/$defs/J"}},
                    ]
                }
            },
        },
        {"a": [1, {"b": None}]},
    ),
    "typebox object": Case(obj("a", a=S, b=B), {"a": "x"}, {"b": True}),
    "typebox union of literals": Case(
        {"anyOf": [{"const": "a", "type": "string"}, {"const": "b", "type": "string"}]}, "a", "c"
    ),
    "typebox record": Case({"type": "object", "patternProperties": {"^(.*)$": N}}, {"x": 1}, {"x": "y"}),
    "typebox record of integers": Case(
        {"type": "object", "patternProperties": {"^(0|[1-9][0-9]*)$": S}, "additionalProperties": False},
        {"12": "x"},
        {"a": "x"},
    ),
    "typebox record of literals": Case(
        {"type": "object", "required": ["a", "b"], "properties": {"a": N, "b": N}}, {"a": 1, "b": 2}, {"a": 1}
    ),
    "typebox tuple": Case(
        {"type": "array", "items": [S, N], "additionalItems": False, "minItems": 2, "maxItems": 2},
        ["a", 1],
        ["a"],
    ),
    "typebox intersect": Case(
        {"type": "object", "allOf": [obj("a", a=S), obj("b", b=N)], "unevaluatedProperties": False},
        {"a": "x", "b": 1},
        {"a": "x", "b": 1, "c": 0},
    ),
    "typebox composite": Case(obj("a b", a=S, b=N), {"a": "x", "b": 1}, {"a": 1, "b": 1}),
    "typebox recursive": Case(
        {"$id": "Node", **obj("id nodes", id=S, nodes=array({"$ref": "Node"}))},
        {"id": "a", "nodes": [{"id": "b", "nodes": []}]},
        {"id": "a"},
    ),
    "typebox template literal": Case({"type": "string", "pattern": "^(a|b)-([1-9][0-9]*|0)$"}, "a-12", "c-1"),
    "typebox not": Case({"type": "object", "properties": {"a": {"not": S}}}, {"a": 1}, {"a": "x"}),
    "typebox date": Case(obj("d", d={"type": "string", "format": "date"}), {"d": "2024-01-02"}, {"d": "x"}),
    "typebox enum": Case({"anyOf": [{"const": 0, "type": "number"}, {"const": 1, "type": "number"}]}, 1, 2),
}
