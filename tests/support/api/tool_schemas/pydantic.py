"""As pydantic 1 and 2 write them."""

from __future__ import annotations

from support.api.tool_schemas import NULL, B, Case, I, N, S, array, enum, obj, one_string, ref, shut, titled


def optional(shape: dict) -> dict:
    return {"anyOf": [shape, NULL], "default": None}


V1_ADDRESS = {"definitions": {"Address": obj("street", street=titled(S, "Street"), zip=titled(S, "Zip"))}}
V2_ADDRESS = {"$defs": {"Address": obj("street", street=titled(S, "Street"), zip=titled(S, "Zip"))}}
COLOR = {"Color": {"title": "Color", "description": "An enumeration.", **enum("red", "green")}}
CAT = obj("kind meow", kind=one_string("cat"), meow=I)
DOG = obj("kind bark", kind=one_string("dog"), bark=B)
NODE = obj("value", value=I, children=array(ref("Node")))

CASES = {
    "v1 field with a description": Case(
        {
            **obj(
                "home", home={"title": "Home", "description": "x", "allOf": [ref("Address", "definitions")]}
            ),
            **V1_ADDRESS,
        },
        {"home": {"street": "a"}},
        {"home": {"street": "a", "city": "b"}},
    ),
    "v1 field with a default": Case(
        {**obj(home={"default": {"street": "x"}, "allOf": [ref("Address", "definitions")]}), **V1_ADDRESS},
        {"home": {"street": "a", "zip": "1"}},
        {"home": {"zip": "1"}},
    ),
    "v1 plain reference": Case(
        {**obj("home", home=ref("Address", "definitions")), **V1_ADDRESS}, {"home": {"street": ""}}, {}
    ),
    "v1 list of models": Case(
        {**obj("all", all=array(ref("Address", "definitions"))), **V1_ADDRESS},
        {"all": [{"street": "a"}]},
        {"all": [1]},
    ),
    "v1 optional": Case(obj(name=titled(S, "Name")), {}, {"name": None}),
    "v1 enum": Case(
        {**obj("color", color=ref("Color", "definitions")), "definitions": COLOR},
        {"color": "red"},
        {"color": "blue"},
    ),
    "v1 enum with a default": Case(
        {**obj(color={"default": "red", "allOf": [ref("Color", "definitions")]}), "definitions": COLOR},
        {"color": "green"},
        {"color": 1},
    ),
    "v1 union": Case(obj("x", x={"title": "X", "anyOf": [I, S]}), {"x": "a"}, {"x": None}),
    "v1 discriminated union": Case(
        {
            **obj(
                "pet",
                pet={
                    "title": "Pet",
                    "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/definitions/Cat"}},
                    "oneOf": [ref("Cat", "definitions"), ref("Dog", "definitions")],
                },
            ),
            "definitions": {
                "Cat": obj("kind meow", kind=enum("cat", type="string"), meow=I),
                "Dog": obj("kind bark", kind=enum("dog", type="string"), bark=B),
            },
        },
        {"pet": {"kind": "dog", "bark": True}},
        {"pet": {"kind": "dog", "meow": 1}},
    ),
    "v1 constrained int": Case(
        obj("n", n={"type": "integer", "exclusiveMinimum": 0, "maximum": 100}), {"n": 100}, {"n": 0}
    ),
    "v1 constr": Case(
        obj("s", s={"type": "string", "minLength": 1, "maxLength": 3, "pattern": "^[a-z]+$"}),
        {"s": "abc"},
        {"s": "abcd"},
    ),
    "v1 conlist": Case(obj("s", s=array(N, minItems=1, maxItems=2)), {"s": [1, 2.5]}, {"s": []}),
    "v1 tuple": Case(
        obj("t", t={"type": "array", "minItems": 2, "maxItems": 2, "items": [I, S]}),
        {"t": [1, "a"]},
        {"t": ["a", 1]},
    ),
    "v1 dict": Case(
        obj("d", d={"type": "object", "additionalProperties": I}), {"d": {"a": 1}}, {"d": {"a": "b"}}
    ),
    "v1 set": Case(obj("s", s=array(S, uniqueItems=True)), refused="uniqueItems"),
    "v1 set of an enum": Case(
        {**obj("s", s=array(ref("Color", "definitions"), uniqueItems=True)), "definitions": COLOR},
        {"s": ["red", "green"]},
        {"s": ["red", "red"]},
    ),
    "v1 literal": Case(obj("l", l=enum("a", "b", type="string")), {"l": "a"}, {"l": "c"}),
    "v1 datetime": Case(
        obj("t", t={"type": "string", "format": "date-time"}), {"t": "2024-05-06T07:08:09Z"}, {"t": "now"}
    ),
    "v1 self reference": Case(
        {
            **ref("Node", "definitions"),
            "definitions": {"Node": obj("value", value=I, next=ref("Node", "definitions"))},
        },
        {"value": 1, "next": {"value": 2}},
        {"next": {}},
    ),
    "v1 forbid": Case(shut("a", a=I), {"a": 1}, {"a": 1, "b": 2}),
    "v1 allow": Case(obj("a", {"additionalProperties": True}, a=I), {"a": 1, "b": 2}, {"b": 2}),
    "v1 schema_of": Case({"title": "ParsingModel[List[int]]", **array(I)}, [1, 2], ["a"]),
    "v2 optional": Case(obj(name=titled(optional(S), "Name")), {"name": None}, {"name": 1}),
    "v2 reference with a description": Case(
        {**obj("home", home={**ref("Address"), "description": "x"}), **V2_ADDRESS},
        {"home": {"street": "a"}},
        {"home": {}},
    ),
    "v2 allOf with a default": Case(
        {**obj(home={"allOf": [ref("Address")], "default": None}), **V2_ADDRESS},
        {"home": {"street": "a"}},
        {"home": {"x": 1}},
    ),
    "v2 optional model": Case(
        {**obj(home=optional(ref("Address"))), **V2_ADDRESS}, {"home": None}, {"home": {"zip": "1"}}
    ),
    "v2 discriminated union": Case(
        {
            **obj(
                "pet",
                pet={
                    "discriminator": {
                        "propertyName": "kind",
                        "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"},
                    },
                    "oneOf": [ref("Cat"), ref("Dog")],
                },
            ),
            "$defs": {"Cat": CAT, "Dog": DOG},
        },
        {"pet": {"kind": "cat", "meow": 3}},
        {"pet": {"kind": "cat", "bark": True}},
    ),
    "v2 plain union of models": Case(
        {**obj("pet", pet={"anyOf": [ref("Cat"), ref("Dog")]}), "$defs": {"Cat": CAT, "Dog": DOG}},
        {"pet": {"kind": "dog", "bark": False}},
        {"pet": {}},
    ),
    "v2 recursive": Case(
        {**ref("Node"), "$defs": {"Node": NODE}}, {"value": 1, "children": [{"value": 2}]}, {"children": []}
    ),
    "v2 enum of ints": Case(
        {**obj("e", e=ref("E")), "$defs": {"E": enum(1, 2, title="E", type="integer")}}, {"e": 2}, {"e": 3}
    ),
    "v2 single literal": Case(
        obj("k", k={"const": "a", "title": "K", "type": "string"}), {"k": "a"}, {"k": "b"}
    ),
    "v2 single literal with enum": Case(
        obj("k", k={"const": "a", "enum": ["a"], "type": "string"}), {"k": "a"}, {"k": None}
    ),
    "v2 tuple": Case(
        obj("t", t={"type": "array", "prefixItems": [I, S], "minItems": 2, "maxItems": 2}),
        {"t": [1, "a"]},
        {"t": [1]},
    ),
    "v2 endless tuple": Case(obj("t", t=array(I)), {"t": []}, {"t": {}}),
    "v2 dict of models": Case(
        {**obj("d", d={"type": "object", "additionalProperties": ref("Address")}), **V2_ADDRESS},
        {"d": {"x": {"street": "a"}}},
        {"d": {"x": {}}},
    ),
    "v2 dict with pattern": Case(
        obj("d", d={"type": "object", "patternProperties": {"^[a-z]+$": I}}),
        {"d": {"ab": 1}},
        {"d": {"ab": "c"}},
    ),
    "v2 dict of literals": Case(
        obj("d", d={"type": "object", "propertyNames": enum("a", "b"), "additionalProperties": I}),
        {"d": {"a": 1}},
        {"d": {"c": 1}},
    ),
    "v2 dict of enum keys": Case(
        {
            **obj("d", d={"type": "object", "propertyNames": ref("Color"), "additionalProperties": I}),
            "$defs": COLOR,
        },
        {"d": {"red": 1}},
        {"d": {"blue": 1}},
    ),
    "v2 decimal": Case(
        obj("p", p={"anyOf": [N, {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}]}),
        {"p": "1.50"},
        {"p": "-."},
    ),
    "v2 decimal as a string": Case(
        obj("p", p={"anyOf": [N, {"type": "string", "pattern": r"^[+-]?\d+(\.\d+)?$"}]}),
        {"p": "1.50"},
        {"p": "x"},
    ),
    "v2 uuid, url, email": Case(
        obj(
            "u l m",
            u={"type": "string", "format": "uuid"},
            l={"type": "string", "format": "uri", "minLength": 1, "maxLength": 2083},
            m={"type": "string", "format": "email"},
        ),
        {"u": "123e4567-e89b-12d3-a456-426614174000", "l": "https://example.com/", "m": "a@b.co"},
        {"u": "1", "l": "https://example.com/", "m": "a@b.co"},
    ),
    "v2 timedelta and time": Case(
        obj("d t", d={"type": "string", "format": "duration"}, t={"type": "string", "format": "time"}),
        {"d": "P1DT2H", "t": "01:02:03Z"},
        {"d": "1 day", "t": "01:02:03Z"},
    ),
    "v2 bytes and path": Case(
        obj("b p", b={"type": "string", "format": "binary"}, p={"type": "string", "format": "path"}),
        {"b": "x", "p": "/"},
        {"b": 1, "p": "/"},
    ),
    "v2 multiple of": Case(obj("n", n={"type": "number", "multipleOf": 0.5}), {"n": 1.5}, {"n": 1.3}),
    "v2 bounds": Case(
        obj("n", n={"type": "number", "minimum": 0.0, "exclusiveMaximum": 1.0}), {"n": 0.25}, {"n": 1.0}
    ),
    "v2 generic": Case(
        {**obj("items", items=array(ref("Page_int_"))), "$defs": {"Page_int_": obj("n", n=I)}},
        {"items": [{"n": 1}]},
        {"items": [{}]},
    ),
    "v2 any": Case(obj("a", a={"title": "A"}), {"a": [None, {"x": 1}]}, {}),
    "v2 json value default": Case(
        obj(a=titled({"default": 3, "type": "integer"}, "A")), {"a": 4}, {"a": "4"}
    ),
    "v2 set of literals": Case(
        obj("s", s=array(enum("x", "y", type="string"), uniqueItems=True, minItems=1)),
        {"s": ["x"]},
        {"s": []},
    ),
    "v2 complex title": Case(
        titled(obj("a", {"description": "A model.\n\nWith “text”."}, a=S), 'X "y"'), {"a": "é\n"}, {"a": 1}
    ),
    "v2 nested optional lists": Case(
        obj(a=optional(array(optional(array(I))))), {"a": [[1], None]}, {"a": ["x"]}
    ),
    "v2 strict forbid": Case(
        {**shut("x", x=ref("Y")), "$defs": {"Y": shut("z", z=B)}}, {"x": {"z": True}}, {"x": {"z": 1}}
    ),
}
