"""Hostile JSON: bodies of inference requests that are no JSON, the wrong JSON, or JSON that wants too much."""

import itertools
import json

DATATYPES = [
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
]

# JSON texts to put in the place of any value.
WRONG = {
    "null": "null",
    "true": "true",
    "zero": "0",
    "minus zero": "-0",
    "minus one": "-1",
    "half": "0.5",
    "1e400": "1e400",
    "-1e400": "-1e400",
    "1e-400": "1e-400",
    "int64 max": "9223372036854775807",
    "int64 max and one": "9223372036854775808",
    "uint64 max": "18446744073709551615",
    "uint64 max and one": "18446744073709551616",
    "digits": "9" * 2000,
    "fraction of digits": "0." + "3" * 2000,
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "text": '"a"',
    "empty text": '""',
    "NUL": '"\\u0000"',
    "escape codes": '"\\u001b[2J"',
    "lines": '"a\\r\\nX-Evil: 1"',
    "surrogate": '"\\ud800"',
    "surrogates backwards": '"\\udc00\\ud800"',
    "emoji": '"\\ud83d\\ude00"',
    "bad escape": '"\\x"',
    "long text": '"' + "a" * 300_000 + '"',
    "empty list": "[]",
    "list of null": "[null]",
    "list of lists": "[[[]]]",
    "mixed list": '[1,"a",null,{}]',
    "empty object": "{}",
    "object": '{"a":1}',
    "deep lists": "[" * 300 + "]" * 300,
    "deep objects": '{"a":' * 300 + "1" + "}" * 300,
    "deeper lists": "[" * 100_000 + "]" * 100_000,
    "lists without end": "[" * 100_000,
    "objects without end": '{"a":' * 50_000,
    "hexadecimal": "0x10",
    "leading zero": "007",
    "plus": "+1",
    "point": ".5",
    "comment": "/* */1",
    "single quotes": "'a'",
    "trailing comma": "[1,]",
    "nothing": "",
    "number cut": "1e",
    "raw newline": '"\n"',
    "unclosed": '"abc',
}


def infer(**parts):
    """The text of a good request to `simple`, with parts replaced by JSON texts: `id`, `parameters`, `outputs`, `inputs`,
    or `name`, `datatype`, `shape`, `data`, `input_parameters`, `output` of the first input or output."""
    numbers = json.dumps(list(range(16)))
    first = {"name": '"INPUT0"', "datatype": '"INT32"', "shape": "[1,16]", "data": numbers}
    more = {"parameters": parts.pop("input_parameters")} if "input_parameters" in parts else {}
    first |= {key: parts.pop(key) for key in list(parts) if key in first} | more
    second = f'{{"name":"INPUT1","datatype":"INT32","shape":[1,16],"data":{numbers}}}'
    text = "{" + ",".join(f'"{key}":{value}' for key, value in first.items() if value is not None) + "}"
    whole = {"inputs": f"[{text},{second}]"}
    if "output" in parts:
        whole["outputs"] = "[" + parts.pop("output") + "]"
    whole |= parts
    return "{" + ",".join(f'"{key}":{value}' for key, value in whole.items()) + "}"


def bodies():
    """(name, model, body) of each."""
    for name, body in itertools.chain(_wrong_values(), _structure(), _shapes(), _parameters(), _text()):
        yield name, "simple", body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")


def _wrong_values():
    for place in (
        "id",
        "parameters",
        "outputs",
        "inputs",
        "name",
        "datatype",
        "shape",
        "data",
        "input_parameters",
        "output",
        "unknown",
    ):
        for name, text in WRONG.items():
            yield f"{place} is {name}", infer(**{place: text})
    for name, text in WRONG.items():
        yield f"body is {name}", text
        yield f"input is {name}", f'{{"inputs":[{text}]}}'
        yield f"shape of {name}", infer(shape=f"[1,{text}]")
        yield f"data of {name}", infer(data=f"[{text}]")
        yield f"data begins with {name}", infer(data="[" + ",".join([text or "0"] + ["1"] * 15) + "]")
        yield f"data nested around {name}", infer(data=f"[[{text}]]")
        for parameter in (
            "binary_data_size",
            "binary_data",
            "shared_memory_region",
            "shared_memory_byte_size",
            "shared_memory_offset",
        ):
            yield (
                f"input parameter {parameter} is {name}",
                infer(input_parameters=f'{{"{parameter}":{text}}}', data=None if name != "zero" else "[]"),
            )
        for parameter in ("classification", "binary_data", "shared_memory_region", "unknown"):
            yield (
                f"output parameter {parameter} is {name}",
                infer(output=f'{{"name":"OUTPUT0","parameters":{{"{parameter}":{text}}}}}'),
            )
        for parameter in (
            "sequence_id",
            "sequence_start",
            "sequence_end",
            "priority",
            "timeout",
            "headers",
            "binary_data_output",
            "label",
            "triton_x",
            "own",
        ):
            yield f"parameter {parameter} is {name}", infer(parameters=f'{{"{parameter}":{text}}}')


def _structure():
    good = infer()
    for at in range(0, len(good), 7):
        yield f"body cut at {at}", good[:at]
    for key in ("inputs", "outputs", "id", "parameters"):
        yield f"{key} twice", "{" + f'"{key}":null,' + good[1:]
        yield f"{key} twice, after", good[:-1] + f',"{key}":[]}}'
    yield "inputs after data", '{"outputs":[],"id":"a",' + good[1:]
    for key in ("name", "datatype", "shape", "data"):
        yield f"{key} missing", infer(**{key: None})
        yield (
            f"{key} twice in an input",
            infer(
                **{
                    key: {
                        "name": '"INPUT0","name":"INPUT1"',
                        "datatype": '"INT32","datatype":"FP32"',
                        "shape": '[1,16],"shape":[16,1]',
                        "data": '[1],"data":[2]',
                    }[key]
                }
            ),
        )
    for order in itertools.permutations(["name", "datatype", "shape", "data"]):
        parts = {"name": '"INPUT0"', "datatype": '"INT32"', "shape": "[1,16]", "data": "[" + "1," * 15 + "1]"}
        text = "{" + ",".join(f'"{key}":{parts[key]}' for key in order) + "}"
        yield f"input in the order {order}", '{"inputs":[%s,%s]}' % (text, text.replace("INPUT0", "INPUT1"))
    one = '{"name":"INPUT0","datatype":"INT32","shape":[1,16],"data":[1]}'
    for count in (0, 1, 3, 1000, 50_000):
        yield f"{count} inputs", '{"inputs":[' + ",".join([one] * count) + "]}"
        yield (
            f"{count} inputs of other names",
            '{"inputs":[' + ",".join(one.replace("INPUT0", f"I{i}") for i in range(count)) + "]}",
        )
        yield f"{count} outputs", infer(outputs="[" + ",".join(['{"name":"OUTPUT0"}'] * count) + "]")
        yield (
            f"{count} outputs of other names",
            infer(outputs="[" + ",".join(f'{{"name":"O{i}"}}' for i in range(count)) + "]"),
        )
        yield f"{count} parameters", infer(parameters="{" + ",".join(f'"p{i}":{i}' for i in range(count)) + "}")
        yield (
            f"{count} parameters of an input",
            infer(input_parameters="{" + ",".join(f'"p{i}":{i}' for i in range(count)) + "}"),
        )
        yield f"{count} parameters of one name", infer(parameters="{" + ",".join(['"p":1'] * count) + "}")
        yield f"{count} unknown keys", good[:-1] + "".join(f',"k{i}":{i}' for i in range(count)) + "}"
    yield "a key of a mebibyte", good[:-1] + ',"' + "k" * (1 << 20) + '":1}'
    yield "a million spaces", " " * 1_000_000 + good
    yield "spaces within", good.replace(",", " " * 500 + "," + "\n\t\r" * 100)
    yield "text behind", good + " x"
    yield "two bodies", good + good
    yield "a list of bodies", f"[{good}]"
    yield "lines of JSON", good + "\n" + good
    yield "nothing", ""
    yield "spaces", "  \n"
    yield "XML", "<infer/>"
    yield "a form", "inputs=1&x=2"
    yield "YAML", "inputs:\n- name: INPUT0\n"


def _shapes():
    numbers = "[" + ",".join(["1"] * 16) + "]"
    big = 1 << 62
    for shape in (
        [],
        [0],
        [1],
        [16],
        [16, 1],
        [1, 16, 1],
        [0, 16],
        [1, 0],
        [-1, 16],
        [1, -16],
        [-1, -16],
        [2, 16],
        [1, 17],
        [1, 15],
        [1 << 31, 16],
        [1 << 32, 16],
        [1 << 60, 16],
        [big, 4],
        [big, big],
        [0, big],
        [big, 0],
        [(1 << 63) - 1, 16],
        [1 << 63],
        [1 << 64],
        [-(1 << 63), 16],
        [1] * 1000,
        [1] * 50_000,
        [0] * 1000,
        [65, 16],
        [1_000_000, 16],
        [[1, 16]],
        ["1", 16],
        [1.0, 16.0],
        [1.5, 16],
        [None, 16],
        [True, 16],
        [1e2, 16],
    ):
        for data in (numbers, "[]", "[[1]]"):
            yield f"shape {str(shape)[:50]} of {len(data)}", infer(shape=json.dumps(shape), data=data)
    for data in (
        "1",
        "[1," * 20 + "1" + "]" * 20,
        "[[1,2],[3]]",
        "[[1,2,3,4],[5,6,7,8,[9]]]",
        "[" + ",".join(["[1]"] * 16) + "]",
        "[[[[" + ",".join(["1"] * 16) + "]]]]",
        "[" + ",".join(["1"] * 17) + "]",
        "[" + ",".join(["1"] * 100_000) + "]",
        "[" + ",".join(["[]"] * 100_000) + "]",
        "[[],[],[1]]",
        '["1"]',
        "[true]",
        "[1.5" + ",1" * 15 + "]",
        "[2147483648" + ",1" * 15 + "]",
        "[-2147483649" + ",1" * 15 + "]",
        "[1e3" + ",1" * 15 + "]",
        "[null" + ",1" * 15 + "]",
    ):
        yield f"data {data[:40]} ({len(data)})", infer(data=data)
    for datatype in (*DATATYPES, "", "int32", "INT", "STRING", "TYPE_INT32", "INT32\0", "X" * 10_000, "COMPLEX"):
        for data in ("[1]", numbers, '["a"]', "[true]", "[null]", "[1e400]", '[""]', "[300]", "[-1]", "[0.1]"):
            yield f"datatype {datatype[:10]} of {data[:20]}", infer(datatype=json.dumps(datatype), data=data)


def _parameters():
    for text in (
        '{"classification":1}',
        '{"classification":0}',
        '{"classification":-1}',
        '{"classification":99999999999}',
        '{"classification":1,"binary_data":true}',
        '{"classification":4294967296}',
        '{"classification":"1"}',
        '{"classification":16}',
    ):
        yield f"output with {text}", infer(output=f'{{"name":"OUTPUT0","parameters":{text}}}')
    for name in ("OUTPUT0", "INPUT0", "nosuch", "", "a\\u0000b", "x" * 10_000):
        yield f"output named {name[:10]}", infer(output=f'{{"name":"{name}"}}')
    yield "an output twice", infer(outputs='[{"name":"OUTPUT0"},{"name":"OUTPUT0","parameters":{"binary_data":true}}]')
    for text in (
        '{"timeout":1}',
        '{"timeout":0}',
        '{"timeout":-5}',
        '{"timeout":9223372036854775807}',
        '{"priority":0}',
        '{"priority":99}',
        '{"priority":-1}',
        '{"priority":18446744073709551615}',
        '{"sequence_id":5,"sequence_start":true}',
        '{"sequence_id":"s","sequence_end":true}',
        '{"sequence_id":0}',
        '{"binary_data_output":true}',
        '{"label":"stable"}',
        '{"label":"../x"}',
        '{"label":"' + "l" * 5000 + '"}',
        '{"headers":{"a":"b"}}',
        '{"":1}',
    ):
        yield f"parameters {text[:40]}", infer(parameters=text)
    for text in (
        '"a\\nb"',
        '"a\\rb"',
        '"\\u0000"',
        '"\\u001b[31m"',
        '"' + "i" * 1_000_000 + '"',
        '"\\u202e"',
        '"💩"',
        '"</script>"',
        '""',
    ):
        yield f"id {text[:20]}", infer(id=text)
    for text in (
        '{"binary_data_size":64}',
        '{"binary_data_size":-1}',
        '{"binary_data_size":0}',
        '{"binary_data_size":18446744073709551615}',
        '{"binary_data_size":1e3}',
        '{"shared_memory_region":"x","shared_memory_byte_size":64}',
        '{"shared_memory_region":"/dev/shm/x"}',
        '{"binary_data_size":64,"shared_memory_region":"x"}',
    ):
        for data in (None, "[" + ",".join(["1"] * 16) + "]", "null"):
            yield f"input {text} with data {str(data)[:5]}", infer(input_parameters=text, data=data)


def _text():
    """Bytes that are no UTF-8, in each place, and other encodings of a good body."""
    good = infer().encode()
    for wrong in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc3", b"\x80", b"\0"):
        for place in (b"INPUT0", b"INT32", b'"inputs"', b"[1", b"{"):
            yield f"{wrong!r} in {place!r}", good.replace(place, place[:2] + wrong + place[2:], 1)
        yield f"{wrong!r} before", wrong + good
        yield f"{wrong!r} after", good + wrong
    yield "byte order mark", b"\xef\xbb\xbf" + good
    for coding in ("utf-16", "utf-16-le", "utf-32", "utf-7"):
        yield coding, good.decode().encode(coding)
