"""As generators of OpenAPI (3.0 and 3.1) and of other languages write them."""

from __future__ import annotations

from support.api.tool_schemas import NULL, B, Case, I, N, S, array, enum, obj, ref, shut


def component(name: str) -> dict:
    return ref(name, "components/schemas")


def components(**schemas: dict) -> dict:
    return {"components": {"schemas": schemas}}


PET = obj("id name", id={"type": "integer", "format": "int64"}, name=S, tag=S)
CARD = {"properties": {"card": S}, "required": ["card"]}
IBAN = {"properties": {"iban": S}, "required": ["iban"]}
DOG = {"allOf": [component("Animal"), obj("bark", bark=B)]}
ANIMAL = obj("type", {"discriminator": {"propertyName": "type"}}, type=S)

CASES = {
    "reference to a component": Case(
        {**component("Pet"), **components(Pet=PET)}, {"id": 1, "name": "a"}, {"id": 1}
    ),
    "inheritance by allOf": Case(
        {**component("Dog"), **components(Dog=DOG, Animal=ANIMAL)},
        {"type": "dog", "bark": True},
        {"type": "dog", "bark": True, "x": 1},
    ),
    "oneOf beside properties": Case(
        obj("amount", {"oneOf": [CARD, IBAN]}, amount=N),
        {"amount": 1, "card": "1"},
        {"amount": 1, "card": "1", "iban": "2"},
    ),
    "oneOf of required names": Case(
        obj("", {"oneOf": [{"required": ["email"]}, {"required": ["phone"]}]}, email=S, phone=S, name=S),
        {"email": "a", "name": "b"},
        {"email": "a", "phone": "b"},
    ),
    "anyOf of required names": Case(
        obj("", {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, a=S, b=S), {"a": "x", "b": "y"}, {}
    ),
    "oneOf with required names first": Case(
        {"oneOf": [{"required": ["x"]}, {"required": ["y"]}], **shut("", x=I, y=I)},
        {"y": 1},
        {"x": 1, "y": 1},
    ),
    "oneOf with nested names": Case(
        obj("", {"oneOf": [{"required": ["a"]}, {"required": ["a", "b"]}]}, a=I, b=I),
        refused="branches 0 and 1 may match the same value",
    ),
    "oneOf of components": Case(
        {
            "oneOf": [component("Cat"), component("Dog")],
            **components(Cat=obj("meow", meow=I), Dog=obj("bark", bark=B)),
        },
        {"bark": True},
        {"meow": 1, "bark": True},
    ),
    "discriminator without constants": Case(
        {
            "oneOf": [component("Cat"), component("Dog")],
            "discriminator": {
                "propertyName": "kind",
                "mapping": {"cat": "#/components/schemas/Cat", "dog": "#/components/schemas/Dog"},
            },
            **components(Cat=obj("kind meow", kind=S, meow=I), Dog=obj("kind bark", kind=S, bark=B)),
        },
        {"kind": "cat", "meow": 1},
        {"kind": "cat"},
    ),
    "oneOf that overlap": Case(
        {"oneOf": [obj("a", a=S), obj("a", a=S, b=I)]}, refused="branches 0 and 1 may match the same value"
    ),
    "oneOf of a type and a narrower one": Case(
        obj("n", n={"oneOf": [I, N]}), refused="oneOf: branches 0 and 1 may match the same value"
    ),
    "oneOf of nullable": Case(
        obj("n", n={"oneOf": [NULL, {"type": "string", "maxLength": 2}]}), {"n": "ab"}, {"n": "abc"}
    ),
    "oneOf of ranges": Case(
        obj("n", n={"oneOf": [{"type": "integer", "maximum": 3}, {"type": "integer", "minimum": 7}]}),
        {"n": 7},
        {"n": 5},
    ),
    "oneOf of array and item": Case(obj("v", v={"oneOf": [S, array(S)]}), {"v": ["a"]}, {"v": 1}),
    "3.0 nullable": Case(obj("a", a={"type": "string", "nullable": True}), {"a": "x"}, {"a": 1}),
    "3.0 nullable reference": Case(
        {**obj("p", p={"allOf": [component("Pet")], "nullable": True}), **components(Pet=PET)},
        {"p": {"id": 1, "name": "x"}},
        {"p": {"id": 1}},
    ),
    "3.0 exclusive bounds": Case(
        obj("n", n={"type": "integer", "minimum": 0, "exclusiveMinimum": False, "maximum": 9}),
        {"n": 0},
        {"n": 10},
    ),
    "3.1 type lists": Case(obj("n", n={"type": ["integer", "null"], "minimum": 1}), {"n": None}, {"n": 0}),
    "int32 and double": Case(
        obj("i d", i={"type": "integer", "format": "int32"}, d={"type": "number", "format": "double"}),
        {"i": 1, "d": 2.5},
        {"i": 1.5, "d": 1},
    ),
    "int64 bounds": Case(
        obj(
            "i",
            i={
                "type": "integer",
                "format": "int64",
                "minimum": -9223372036854775808,
                "maximum": 9223372036854775807,
            },
        ),
        {"i": 9223372036854775807},
        {"i": 9223372036854775808},
    ),
    "uint64 identifiers": Case(
        obj("i", i={"type": "integer", "minimum": 0, "maximum": 18446744073709551615}),
        {"i": 18446744073709551615},
        {"i": 18446744073709551616},
    ),
    "snowflakes": Case(
        obj("i", i=enum(1148723948572938471, 1148723948572938472)),
        {"i": 1148723948572938472},
        {"i": 1148723948572938496},
    ),
    "read only": Case(
        obj("a", a={"type": "string", "readOnly": True}, b={"type": "string", "writeOnly": True}),
        {"a": "x"},
        {"a": 1},
    ),
    "example and xml": Case(
        obj("a", a={"type": "string", "example": "x", "xml": {"name": "a"}, "externalDocs": {"url": "u"}}),
        {"a": "y"},
        {"a": 1},
    ),
    "vendor extensions": Case(
        obj("a", {"x-internal": True}, a={"type": "string", "x-go-name": "A", "x-order": 1}),
        {"a": "y"},
        {"a": 1},
    ),
    "additionalProperties of a reference": Case(
        {"type": "object", "additionalProperties": component("Pet"), **components(Pet=PET)},
        {"x": {"id": 1, "name": "a"}},
        {"x": {}},
    ),
    "additionalProperties with properties": Case(
        obj("id", {"additionalProperties": S}, id=I), {"id": 1, "x": "y"}, {"id": 1, "x": 2}
    ),
    "additionalProperties without type": Case(
        {"additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": "b"}
    ),
    "free form": Case({"type": "object", "additionalProperties": True}, {"a": [1]}, []),
    "properties without type": Case({"properties": {"a": S}, "required": ["a"]}, {"a": "x"}, {"a": 1}),
    "items without type": Case({"items": S}, ["a"], [1]),
    "enum with null": Case(obj("e", e=enum("a", None, type=["string", "null"])), {"e": None}, {"e": "b"}),
    "enum of mixed types": Case(obj("e", e=enum("a", 1, True, 2.5)), {"e": 2.5}, {"e": False}),
    "maxProperties": Case(
        {"type": "object", "additionalProperties": S, "maxProperties": 1}, {"a": "b"}, {"a": "b", "c": "d"}
    ),
    "minProperties with optional ones": Case(shut("", {"minProperties": 1}, a=I, b=I, c=I), {"c": 1}, {}),
    "minProperties of a map": Case(
        {"type": "object", "additionalProperties": I, "minProperties": 2}, {"a": 1, "b": 2}, {"a": 1}
    ),
    "pattern and length": Case(
        obj("s", s={"type": "string", "pattern": "^[A-Z]{2}[0-9]*$", "minLength": 3, "maxLength": 4}),
        {"s": "AB1"},
        {"s": "AB"},
    ),
    "allOf of bounds": Case(
        obj("n", n={"allOf": [{"type": "integer"}, {"minimum": 3}, {"maximum": 5}]}), {"n": 4}, {"n": 6}
    ),
    "allOf of enums": Case(obj("e", e={"allOf": [enum("a", "b"), enum("b", "c")]}), {"e": "b"}, {"e": "a"}),
    "allOf that excludes all": Case({"allOf": [S, I]}, refused="nothing matches it"),
    "anyOf in allOf": Case(
        {"allOf": [obj("a", a=I), {"anyOf": [obj("b", b=I), obj("c", c=I)]}]}, {"a": 1, "c": 2}, {"a": 1}
    ),
    "deep inheritance": Case(
        {
            **component("C"),
            **components(
                A=obj("a", a=I),
                B={"allOf": [component("A"), obj("b", b=I)]},
                C={"allOf": [component("B"), obj("c", c=I)]},
            ),
        },
        {"a": 1, "b": 2, "c": 3},
        {"a": 1, "b": 2},
    ),
    "circular components": Case(
        {**component("A"), **components(A=obj("n", n=I, b=component("B")), B=obj("", a=component("A")))},
        {"n": 1, "b": {"a": {"n": 2}}},
        {"n": 1, "b": {"a": {}}},
    ),
    "escaped pointers": Case(
        {**obj("a", a={"$ref": "#/$defs/x~1y%20z"}), "$defs": {"x/y z": I}}, {"a": 1}, {"a": "b"}
    ),
    "anchors": Case(
        {**obj("a", a={"$ref": "#it"}), "$defs": {"x": {"$anchor": "it", **I}}}, {"a": 1}, {"a": "b"}
    ),
    "other documents": Case(
        obj("a", a={"$ref": "https://example.com/schemas/a.json"}),
        refused="only references inside of the schema",
    ),
    "dangling reference": Case(
        obj("a", a=component("Nix")), refused="there is no '#/components/schemas/Nix' in the schema"
    ),
    "serde externally tagged": Case(
        {
            "oneOf": [
                shut("Circle", Circle=shut("r", r=N)),
                shut("Square", Square=shut("s", s=N)),
                {"type": "string", "enum": ["Point"]},
            ]
        },
        {"Circle": {"r": 1}},
        {"Circle": {}},
    ),
    "serde internally tagged": Case(
        {"oneOf": [obj("t r", t=enum("c", type="string"), r=N), obj("t", t=enum("p", type="string"))]},
        {"t": "p"},
        {"t": "c"},
    ),
    "schemars numbers": Case(
        obj(
            "a b",
            a={"type": "integer", "format": "uint32", "minimum": 0.0},
            b={"type": ["number", "null"], "format": "double"},
        ),
        {"a": 0, "b": None},
        {"a": -1, "b": 1},
    ),
    "go pointers": Case(shut("a", a={"oneOf": [S, NULL]}), {"a": None}, {"a": 1}),
    "java dates": Case(
        obj("d", d={"type": "string", "format": "date-time"}),
        {"d": "2024-01-02T03:04:05.678+01:00"},
        {"d": "2024-01-02"},
    ),
    "quicktype": Case(
        {
            "$ref": "#/definitions/W",
            "definitions": {
                "W": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"g": S},
                    "required": ["g"],
                    "title": "W",
                }
            },
        },
        {"g": "x"},
        {},
    ),
}
