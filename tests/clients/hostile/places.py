"""Folders where something else stands in the place of a model file, a version or a model."""

import contextlib
import os
import shutil
import stat

from .damaged import FLOATS
from .external import bound_socket
from .folders import VERSION, HostileModel
from .onnx_bytes import identity


def models():
    yield from _in_place_of_the_file()
    yield from _in_place_of_the_version()
    yield from _in_place_of_the_folder()


def _in_place_of_the_file():
    good = identity()

    def place(name, make, onnx=None):
        return HostileModel(
            f"place_{name}", onnx, arrange=lambda folder: make(folder / VERSION / "model.onnx", folder), asks=FLOATS
        )

    def link(target):
        return lambda at, folder: at.symlink_to(target)

    def linked_above(at, folder):
        (folder / "secret.onnx").write_bytes(good)
        at.symlink_to("../secret.onnx")

    def hard(at, folder):
        (folder / "other.onnx").write_bytes(good)
        os.link(folder / "other.onnx", at)

    def in_folder(make):
        return lambda at, folder: (at.mkdir(), make(at / "model.onnx"))

    yield place("fifo", lambda at, folder: os.mkfifo(at))
    yield place("folder", lambda at, folder: at.mkdir())
    yield place("folder_with_a_model", in_folder(lambda at: at.write_bytes(good)))
    yield place("folder_with_a_fifo", in_folder(os.mkfifo))
    yield place("folder_with_a_folder", in_folder(lambda at: (at.mkdir(), (at / "model.onnx").write_bytes(good))))
    yield place("socket", lambda at, folder: bound_socket(at))
    yield place("link_above", linked_above)
    yield place("link_to_zero", link("/dev/zero"))
    yield place("link_to_random", link("/dev/urandom"))
    yield place("link_to_passwd", link("/etc/passwd"))
    yield place("link_to_memory", link("/proc/self/mem"))
    yield place("link_to_kernel_log", link("/proc/kmsg"))
    yield place("link_to_terminal", link("/dev/tty"))
    yield place("link_to_input", link("/dev/stdin"))
    yield place("link_to_itself", link("model.onnx"))
    yield place("link_dangling", link("nowhere.onnx"))
    yield place("link_to_a_folder", link(".."))
    yield place("hard_link", hard)
    yield place("unreadable", lambda at, folder: at.chmod(0), good)
    yield place("named_otherwise", lambda at, folder: at.rename(at.with_name("other.onnx")), good)
    yield place("named_oddly", lambda at, folder: (at.with_name("a\n\x1b[2J.onnx")).write_bytes(good))
    yield place("among_5_000_files", lambda at, folder: [(at.parent / f"f{i}.onnx").touch() for i in range(5000)])
    yield place("missing", lambda at, folder: None)
    yield place("device", _device)


def _device(at, _):
    """/dev/zero under the name of a model, where this process may make one."""
    with contextlib.suppress(PermissionError):
        os.mknod(at, 0o600 | stat.S_IFCHR, os.makedev(1, 5))


def _in_place_of_the_version():
    good = identity()

    def versions(name, make):
        def arrange(folder):
            shutil.rmtree(folder / VERSION)
            make(folder)

        return HostileModel(f"versions_{name}", None, arrange=arrange, asks=FLOATS)

    def filled(at):
        at.mkdir()
        (at / "model.onnx").write_bytes(good)

    yield versions("none", lambda folder: None)
    yield versions("file", lambda folder: (folder / "1").write_bytes(good))
    yield versions("fifo", lambda folder: os.mkfifo(folder / "1"))
    yield versions("link_to_root", lambda folder: (folder / "1").symlink_to("/"))
    yield versions("link_to_itself", lambda folder: (folder / "1").symlink_to("1"))
    yield versions("link_up", lambda folder: (folder / "1").symlink_to(".."))
    yield versions("link_to_process", lambda folder: (folder / "1").symlink_to("/proc/self"))
    odd = ["0", "-1", "01", "1e3", " 1", "1 ", "٣", "9" * 18, "9" * 40, "1.0", "0x1", "+1", "\n1", "NaN"]
    for i, name in enumerate(odd):
        yield versions(f"named_oddly_{i}", lambda folder, name=name: filled(folder / name))
    yield versions("10_000", lambda folder: [(folder / str(i)).mkdir() for i in range(1, 10_001)])
    yield versions("highest_empty", lambda folder: (filled(folder / "1"), (folder / "2").mkdir()))
    yield versions("unreadable", lambda folder: (filled(folder / "1"), (folder / "1").chmod(0)))


def _in_place_of_the_folder():
    good = identity()

    def instead(name, make):
        def arrange(folder):
            shutil.rmtree(folder)
            make(folder)

        return HostileModel(f"folder_{name}", None, arrange=arrange, asks=FLOATS)

    yield instead("file", lambda folder: folder.write_bytes(good))
    yield instead("fifo", os.mkfifo)
    yield instead("link_to_root", lambda folder: folder.symlink_to("/"))
    yield instead("link_to_itself", lambda folder: folder.symlink_to(folder.name))
    yield instead("link_to_the_repository", lambda folder: folder.symlink_to("."))
    yield instead("link_dangling", lambda folder: folder.symlink_to("nowhere"))
    yield instead("link_to_process", lambda folder: folder.symlink_to("/proc/self"))
    yield instead("empty", lambda folder: folder.mkdir())
    yield instead("unreadable", lambda folder: folder.mkdir(mode=0))
    odd = [
        "a b",
        "a\nb",
        "\x1b[2J",
        "%2e%2e",
        "..a",
        "-rf",
        "ü",
        "n" * 200,
        "a;b",
        "$(id)",
        "con",
        "CON:",
        "\\",
        "*",
        "~",
        "#",
    ]
    for i, name in enumerate(odd):
        yield instead(f"beside_one_named_oddly_{i}", lambda folder, name=name: _named(folder, name, good))
    yield instead("beside_one_not_utf8", lambda folder: _named(folder, os.fsdecode(b"\xff\xfe"), good))


def _named(folder, name, onnx):
    """A good model under a name that is none, beside the folder, which holds a good one too."""
    for at in (folder, folder.parent / name):
        (at / VERSION).mkdir(parents=True, exist_ok=True)
        (at / VERSION / "model.onnx").write_bytes(onnx)
