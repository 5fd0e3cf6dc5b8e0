"""Models whose weights are said to stand in other files: files elsewhere, no files, files that never end."""

import os
import struct

from .damaged import FLOATS
from .folders import VERSION, HostileModel
from .onnx_bytes import (
    FLOAT,
    STRING,
    Tensor,
    external,
    file,
    function,
    graph,
    identity,
    integers,
    node,
    one_to_one,
    port,
)
from .protobuf import blob

WEIGHTS = struct.pack("<4f", 1, 2, 3, 4)
# What a model must never give away: it stands outside of its folder.
SECRET = struct.pack("<4f", 6661, 6662, 6663, 6664)
IN_MEMORY = ["*/_ORT_MEM_ADDR_/*", "*/_ORT_NATIVE_ENDIAN_MEM_ADDR_/*"]


def models():
    yield from _locations()
    yield from _ranges()
    yield from _links()
    yield from _places_in_the_file()


def added(weight, **more):
    return one_to_one([node("Add", ["x", "w"], ["y"])], [weight], **more)


def beside(name, onnx, files=None, arrange=None):
    """A model with files in its version's folder."""

    def write(folder):
        for path, content in (files or {}).items():
            (folder / VERSION / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / VERSION / path).write_bytes(content)
        if arrange:
            arrange(folder)

    return HostileModel(f"data_{name}", onnx, arrange=write, asks=FLOATS)


def _locations():
    def at(name, location, **files_and_more):
        return beside(name, added(external("w", FLOAT, [4], location, 0, 16)), **files_and_more)

    yield at("good", "w.bin", files={"w.bin": WEIGHTS})
    yield at("missing", "w.bin")
    yield at("absolute", "/etc/passwd")
    yield at("of_memory", "/proc/self/mem")
    yield at("of_environment", "/proc/self/environ")
    yield at("of_zero", "/dev/zero")
    yield at("of_descriptor", "/dev/fd/0")
    yield at("above", "../secret.bin", arrange=lambda folder: (folder / "secret.bin").write_bytes(SECRET))
    yield at("above_and_back", f"../{VERSION}/w.bin", files={"w.bin": WEIGHTS})
    yield at(
        "above_by_a_folder",
        "sub/../../secret.bin",
        files={"sub/x": b""},
        arrange=lambda folder: (folder / "secret.bin").write_bytes(SECRET),
    )
    yield at("backslashes", "..\\secret.bin", arrange=lambda folder: (folder / "secret.bin").write_bytes(SECRET))
    yield at("dots", "./././w.bin", files={"w.bin": WEIGHTS})
    yield at("slashes", ".//w.bin", files={"w.bin": WEIGHTS})
    yield at("empty", "")
    yield at("dot", ".")
    yield at("two_dots", "..")
    yield at("folder", "sub", files={"sub/x": WEIGHTS})
    yield at("itself", "model.onnx")
    yield at("nul", "w.bin\0.txt", files={"w.bin": WEIGHTS})
    yield at("not_utf8", b"\xff\xfe")
    yield at("newline", "w\n.bin")
    yield at("long", "w" * 5000)
    yield at("deep", "a/" * 3000 + "w.bin")
    yield at("home", "~/w.bin")
    yield at("url", "file:///etc/passwd")
    yield at("variable", "$HOME/w.bin")
    yield at("percent", "%2e%2e/secret.bin", arrange=lambda folder: (folder / "secret.bin").write_bytes(SECRET))
    # ONNX Runtime's own mark for weights that are in memory: the offset is then an address to read at.
    for i, mark in enumerate(IN_MEMORY):
        for name, address in (("null", 0), ("one", 1), ("page", 0x400000), ("all", (1 << 63) - 1)):
            made = added(external("w", FLOAT, [4], mark, address, 16))
            yield beside(f"in_memory_{i}_at_{name}", made)
            yield beside(f"in_memory_{i}_at_{name}_with_a_file", made, files={mark: WEIGHTS})
    first_good = (("location", "../secret.bin"),)
    secret = lambda folder: (folder / "secret.bin").write_bytes(SECRET)  # noqa: E731
    yield beside(
        "location_twice", added(external("w", FLOAT, [4], "w.bin", 0, 16, first_good)), {"w.bin": WEIGHTS}, secret
    )
    yield beside(
        "location_twice_backwards",
        added(external("w", FLOAT, [4], "../secret.bin", 0, 16, (("location", "w.bin"),))),
        {"w.bin": WEIGHTS},
        secret,
    )
    yield beside(
        "unknown_key",
        added(external("w", FLOAT, [4], "w.bin", 0, 16, (("exec", "true"), ("basepath", "/etc")))),
        {"w.bin": WEIGHTS},
    )
    yield beside(
        "no_location",
        added(external("w", FLOAT, [4], "w.bin", 0, 16).replace(b"location", b"elsewher")),
        {"w.bin": WEIGHTS},
    )
    yield beside(
        "of_strings",
        one_to_one([node("Identity", ["w"], ["y"])], [external("w", STRING, [4], "w.bin", 0, 16)], out=(STRING, None)),
        {"w.bin": WEIGHTS},
    )
    yield beside("also_within", added(external("w", FLOAT, [4], "w.bin", 0, 16) + blob(9, WEIGHTS)), {"w.bin": WEIGHTS})


def _ranges():
    def ranged(name, offset=None, length=None, dims=(4,), content=WEIGHTS, more=()):
        return beside(
            f"range_{name}", added(external("w", FLOAT, dims, "w.bin", offset, length, more)), {"w.bin": content}
        )

    yield ranged("none")
    yield ranged("offset_beyond", 100, 16)
    yield ranged("offset_far", 1 << 40, 16)
    yield ranged("offset_negative", -16, 16)
    yield ranged("offset_int64_max", (1 << 63) - 1, 16)
    yield ranged("offset_uint64", (1 << 64) - 16, 16)
    yield ranged("offset_text", "abc", 16)
    yield ranged("offset_empty", "", 16)
    yield ranged("offset_fraction", "0.5", 16)
    yield ranged("offset_odd", 3, 13)
    yield ranged("length_beyond", 0, 1 << 20)
    yield ranged("length_int64_max", 0, (1 << 63) - 1)
    yield ranged("length_negative", 0, -1)
    yield ranged("length_zero", 0, 0)
    yield ranged("length_short", 0, 4)
    yield ranged("length_text", 0, "many")
    yield ranged("sum_overflows", (1 << 63) - 1, (1 << 63) - 1)
    yield ranged("file_empty", 0, 16, content=b"")
    yield ranged("dims_huge", 0, None, (1 << 40,))
    yield ranged("dims_overflow", 0, None, (1 << 32, 1 << 32))
    yield ranged("dims_negative", 0, 16, (-4,))
    yield ranged("dims_zero", 0, 16, (0,))
    both = [external("w", FLOAT, [4], "w.bin", 0, 16), external("v", FLOAT, [4], "w.bin", 8, 16)]
    overlapping = one_to_one([node("Add", ["x", "w"], ["a"]), node("Add", ["a", "v"], ["y"])], both)
    yield beside("range_overlapping", overlapping, {"w.bin": WEIGHTS * 2})
    many = [external(f"w{i}", FLOAT, [4], "w.bin", 0, 16) for i in range(20_000)]
    yield beside(
        "range_20_000_of_one_file",
        file(graph([node("Identity", ["x"], ["y"])], [port("x")], [port("y")], many)),
        {"w.bin": WEIGHTS},
    )

    def sparse(folder):
        with open(folder / VERSION / "w.bin", "wb") as out:
            out.truncate(16 << 30)

    holes = one_to_one(
        [node("ReduceMax", ["w"], ["m"], keepdims=0), node("Add", ["x", "m"], ["y"])],
        [external("w", FLOAT, [1 << 32], "w.bin", 0, 16 << 30)],
    )
    yield beside("range_of_16_gib_of_holes", holes, arrange=sparse)


def _links():
    def made(name, arrange):
        return beside(
            f"link_{name}",
            added(external("w", FLOAT, [4], "w.bin", 0, 16)),
            arrange=lambda folder: arrange(folder / VERSION / "w.bin", folder),
        )

    def link(target):
        return lambda at, folder: at.symlink_to(target)

    def outside(at, folder):
        (folder / "secret.bin").write_bytes(SECRET)
        at.symlink_to("../secret.bin")

    def hard(at, folder):
        (folder / "secret.bin").write_bytes(SECRET)
        os.link(folder / "secret.bin", at)

    yield made("outside", outside)
    yield made("to_passwd", link("/etc/passwd"))
    yield made("to_zero", link("/dev/zero"))
    yield made("to_memory", link("/proc/self/mem"))
    yield made("to_pages", link("/proc/self/pagemap"))
    yield made("to_itself", link("w.bin"))
    yield made("dangling", link("nowhere.bin"))
    yield made("to_a_folder", link("."))
    yield made("hard", hard)
    yield made(
        "chain_of_60",
        lambda at, folder: [(at.parent / (f"l{i}" if i else "w.bin")).symlink_to(f"l{i + 1}") for i in range(60)],
    )
    yield made("fifo", lambda at, folder: os.mkfifo(at))
    yield made("socket", lambda at, folder: bound_socket(at))
    yield made("unreadable", lambda at, folder: (at.write_bytes(WEIGHTS), at.chmod(0)))
    folder_link = added(external("w", FLOAT, [4], "sub/secret.bin", 0, 16))

    def linked_folder(folder):
        (folder / "secrets").mkdir()
        (folder / "secrets" / "secret.bin").write_bytes(SECRET)
        (folder / VERSION / "sub").symlink_to("../secrets")

    yield beside("link_by_a_folder", folder_link, arrange=linked_folder)


def bound_socket(at):
    """A socket's file; its name may be longer than `bind` takes."""
    import socket

    made = socket.socket(socket.AF_UNIX)
    here = os.open(at.parent, os.O_RDONLY)
    try:
        made.bind(f"/proc/self/fd/{here}/{at.name}")
    finally:
        os.close(here)
        made.close()


def _places_in_the_file():
    """The same absolute location, in every place of a file where a tensor may stand."""
    bad = external("w", FLOAT, [4], "/etc/passwd", 0, 16)
    given = Tensor(external("", FLOAT, [4], "/etc/passwd", 0, 16))
    constant = node("Constant", [], ["w"], value=given)
    add = node("Add", ["x", "w"], ["y"])
    yield HostileModel("data_in_a_constant", one_to_one([constant, add]), asks=FLOATS)
    inner = graph([constant, node("Add", ["x", "w"], ["r"])], [], [port("r")])
    true = node("Constant", [], ["c"], value_ints=[1])
    cast = node("Cast", ["c"], ["b"], to=9)
    branch = node("If", ["b"], ["y"], then_branch=inner, else_branch=inner)
    yield HostileModel("data_in_a_branch", one_to_one([true, cast, branch]), asks=FLOATS)
    with_initializer = graph([node("Add", ["x", "w"], ["r"])], [], [port("r")], [bad])
    branch = node("If", ["b"], ["y"], then_branch=with_initializer, else_branch=with_initializer)
    yield HostileModel("data_in_a_branch_s_initializer", one_to_one([true, cast, branch]), asks=FLOATS)
    made = function("f", ["x"], ["y"], [constant, add])
    yield HostileModel(
        "data_in_a_function", one_to_one([node("f", ["x"], ["y"], domain="local")], functions=[made]), asks=FLOATS
    )
    defaults = blob(11, blob(1, "t") + blob(5, given) + b"\xa0\x01\x04")
    made = (
        function(
            "f",
            ["x"],
            ["y"],
            [node("Constant", [], ["w"]) + blob(5, blob(1, "value") + blob(21, "t") + b"\xa0\x01\x04"), add],
        )
        + defaults
    )
    yield HostileModel(
        "data_in_a_function_s_default",
        one_to_one([node("f", ["x"], ["y"], domain="local")], functions=[made]),
        asks=FLOATS,
    )
    sparse = blob(15, blob(1, bad) + blob(2, integers("", 0, 1, 2, 3)) + b"\x18\x04")
    yield HostileModel(
        "data_in_a_sparse_weight", file(graph([add], [port("x")], [port("y")], more=sparse)), asks=FLOATS
    )
    yield HostileModel("data_in_training", identity(more=blob(20, blob(1, graph([], [], [], [bad])))), asks=FLOATS)
    unused = identity(functions=[function("g", ["x"], ["y"], [constant, add])])
    yield HostileModel("data_in_an_unused_function", unused, asks=FLOATS)
    yield HostileModel("data_in_an_unused_weight", one_to_one([node("Identity", ["x"], ["y"])], [bad]), asks=FLOATS)
