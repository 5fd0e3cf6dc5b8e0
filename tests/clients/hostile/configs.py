"""A good model with a hostile config.pbtxt: bombs of brackets, numbers beyond any machine, files that are none."""

import os

from .damaged import FLOATS
from .folders import HostileModel
from .onnx_bytes import identity

INPUTS = 'input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]\noutput [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
GOOD = "max_batch_size: 8\n" + INPUTS
MEBIBYTE = 1 << 20


def models():
    yield from _texts()
    yield from _numbers()
    yield from _files()


def config(name, text, arrange=None):
    return HostileModel(
        f"config_{name}",
        identity(),
        text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"),
        arrange,
        FLOATS,
    )


def _texts():
    for name, text in {
        "good": GOOD,
        "empty": "",
        "nul": GOOD + "\0",
        "nuls": "\0" * 1000,
        "not_utf8": GOOD.encode() + b'name: "\xff"',
        "utf16": GOOD.encode("utf-16"),
        "byte_order_mark": b"\xef\xbb\xbf" + GOOD.encode(),
        "binary": bytes(range(256)) * 8,
        "json": '{"max_batch_size": 8}',
        "brackets_open": "[" * MEBIBYTE,
        "brackets_closed": "]" * MEBIBYTE,
        "braces_open": "{" * MEBIBYTE,
        "braces_closed": "}" * MEBIBYTE,
        "brackets_in_words": "a[" * (MEBIBYTE // 2),
        "commas": "a,]" * (MEBIBYTE // 3),
        "brackets_behind_a_comment": "#" + "x" * MEBIBYTE + "\n" + "[" * 1000,
        "brackets_between_quotes": '"[' * (MEBIBYTE // 2),
        "angles": "<" * MEBIBYTE,
        "spaces": " " * (8 * MEBIBYTE) + GOOD,
        "lines": "\n" * (8 * MEBIBYTE) + GOOD,
        "comments": "# comment\n" * 200_000 + GOOD,
        "comment_long": "#" + "c" * (4 * MEBIBYTE) + "\n" + GOOD,
        "comment_without_end": GOOD + "#" + "[" * 100_000,
        "quote_without_end": GOOD + 'name: "' + "a" * MEBIBYTE,
        "name_of_a_mebibyte": f'name: "{"n" * MEBIBYTE}"',
        "escapes": 'name: "' + "\\377" * 100_000 + '"',
        "escape_bad": 'name: "\\x"',
        "escape_at_the_end": 'name: "\\',
        "number_long": "max_batch_size: " + "9" * MEBIBYTE,
        "key_long": "k" * MEBIBYTE + ": 1",
        "model_warmup_deep": "model_warmup { " * 10_000,
        "unknown_deep": "a { " * 100_000 + "}" * 100_000,
        "parameters_deep": "parameters { key: " * 5_000,
        "any": "[type.googleapis.com/x.Y] { a: 1 }",
        "extension": "[a.b.c]: 5",
        "inputs_100_000": 'input { name: "x" data_type: TYPE_FP32 dims: 4 }\n' * 100_000,
        "parameters_100_000": "".join(
            f'parameters {{ key: "k{i}" value {{ string_value: "v" }} }}\n' for i in range(100_000)
        )
        + GOOD,
        "key_twice": GOOD + "max_batch_size: 4\n",
        "unknown_key": GOOD + "explode: true\n",
        "unknown_enum": GOOD.replace("TYPE_FP32", "TYPE_EVIL"),
        "enum_number": GOOD.replace("TYPE_FP32", "99"),
        "name_of_another": 'name: "other"\n' + GOOD,
        "name_path": 'name: "../../etc"\n' + GOOD,
        "name_escape": 'name: "\\033[2J\\007"\n',
        "backend_path": 'backend: "../../../bin/sh"\n' + GOOD,
        "platform": 'platform: "pytorch_libtorch"\n' + GOOD,
        "ensemble": 'platform: "ensemble"\nensemble_scheduling { step { model_name: "config_ensemble" model_version: -1 } }',
        "input_reshape_huge": GOOD.replace(
            "dims: [ 4 ] } ]\noutput", "dims: [ 4 ] reshape { shape: [ 4611686018427387904, 4 ] } } ]\noutput"
        ),
        "dims_huge": GOOD.replace("[ 4 ]", "[ 9223372036854775807, 2 ]"),
        "dims_negative": GOOD.replace("[ 4 ]", "[ -9 ]"),
        "dims_100_000": GOOD.replace("[ 4 ]", "[ " + "1, " * 100_000 + "4 ]"),
        "dims_zero": GOOD.replace("[ 4 ]", "[ 0 ]"),
        "labels_format": GOOD + 'output [ { name: "y" label_filename: "" } ]',
        "infinity": "dynamic_batching { max_queue_delay_microseconds: inf }",
        "minus": "max_batch_size: - 8",
        "hexadecimal": "max_batch_size: 0xFFFFFFFFFF",
        "octal": "max_batch_size: 0777777777777777777777777",
        "semicolons": ";;;;" * 10_000,
        "colons": ":" * MEBIBYTE,
    }.items():
        yield config(name, text)

    def huge(folder):
        with open(folder / "config.pbtxt", "wb") as out:
            out.truncate(8 << 30)

    yield config("of_8_gib_of_nuls", "", huge)


def _numbers():
    for name, text in {
        "batch_huge": GOOD.replace("8", "2147483647", 1),
        "batch_negative": GOOD.replace("8", "-1", 1),
        "batch_over": GOOD.replace("8", "2147483648", 1),
        "batch_int32_min": GOOD.replace("8", "-2147483648", 1),
        "instances_billion": GOOD + "instance_group { count: 1000000000 kind: KIND_CPU }",
        "instances_10_000": GOOD + "instance_group { count: 10000 kind: KIND_CPU }",
        "instances_negative": GOOD + "instance_group { count: -5 kind: KIND_CPU }",
        "instances_none": GOOD + "instance_group { count: 0 kind: KIND_CPU }",
        "instance_groups_100_000": GOOD + "instance_group { count: 1 kind: KIND_CPU }\n" * 100_000,
        "gpus_billion": GOOD + "instance_group { kind: KIND_GPU gpus: [ 1000000000, -1 ] }",
        "delay_huge": GOOD + "dynamic_batching { max_queue_delay_microseconds: 18446744073709551615 }",
        "priority_levels_huge": GOOD
        + "dynamic_batching { priority_levels: 18446744073709551615 default_priority_level: 1 }",
        "priority_levels_million": GOOD
        + "dynamic_batching { priority_levels: 1000000 default_priority_level: 999999 }",
        "priority_levels_4_billion": GOOD
        + "dynamic_batching { priority_levels: 4294967295 default_priority_level: 1 }",
        "priority_default_beyond": GOOD + "dynamic_batching { priority_levels: 2 default_priority_level: 9 }",
        "preferred_huge": GOOD + "dynamic_batching { preferred_batch_size: [ 2147483647, -5, 0 ] }",
        "preferred_million": GOOD + "dynamic_batching { preferred_batch_size: [ " + "1, " * 100_000 + "1 ] }",
        "queue_huge": GOOD + "dynamic_batching { default_queue_policy { max_queue_size: 4294967295 } }",
        "queue_timeout_huge": GOOD
        + "dynamic_batching { default_queue_policy { default_timeout_microseconds: 18446744073709551615 } }",
        "threads_billion": GOOD + 'parameters { key: "intra_op_thread_count" value { string_value: "1000000000" } }',
        "threads_10_000": GOOD + 'parameters { key: "intra_op_thread_count" value { string_value: "10000" } }',
        "threads_negative": GOOD + 'parameters { key: "intra_op_thread_count" value { string_value: "-1" } }',
        "threads_of_both_kinds": GOOD
        + 'parameters { key: "inter_op_thread_count" value { string_value: "100000" } }\nparameters { key: "execution_mode" value { string_value: "1" } }',
        "threads_text": GOOD + 'parameters { key: "intra_op_thread_count" value { string_value: "many" } }',
        "objective_huge": GOOD + 'parameters { key: "latency_objective_ms" value { string_value: "1e308" } }',
        "objective_nan": GOOD + 'parameters { key: "latency_objective_ms" value { string_value: "nan" } }',
        "objective_negative": GOOD + 'parameters { key: "latency_objective_ms" value { string_value: "-5" } }',
        "tokens_huge": GOOD + 'parameters { key: "max_batch_tokens" value { string_value: "99999999999999999999" } }',
        "padded_odd": GOOD + 'parameters { key: "pad_inputs" value { string_value: "x:nan,x:mask,:,::::" } }',
        "padded_long": GOOD + 'parameters { key: "pad_inputs" value { string_value: "' + "x:0," * 100_000 + '" } }',
        "session_option": GOOD + 'parameters { key: "session.load_model_format" value { string_value: "ORT" } }',
        "session_option_odd": GOOD + 'parameters { key: "session.\\000" value { string_value: "\\000" } }',
        "session_thread_affinity": GOOD
        + 'parameters { key: "session.intra_op_thread_affinities" value { string_value: "9999;1-99999" } }',
        "session_custom_ops": GOOD
        + 'parameters { key: "session.register_custom_ops" value { string_value: "/bin/sh" } }',
        "session_ep_context": GOOD
        + 'parameters { key: "ep.context_enable" value { string_value: "1" } }\nparameters { key: "session.optimized_model_filepath" value { string_value: "../../x" } }',
        "session_ep_context_path": GOOD
        + 'parameters { key: "session.ep.context_file_path" value { string_value: "/tmp/x" } }',
        "session_inference_only": GOOD + 'parameters { key: "session.use_env_allocators" value { string_value: "1" } }',
        "graph_level": GOOD + "optimization { graph { level: 2147483647 } }",
        "session_external_folder": GOOD
        + 'parameters { key: "session.model_external_initializers_file_folder_path" value { string_value: "/etc" } }',
        "session_debug_layout": GOOD
        + 'parameters { key: "session.debug_layout_transformation" value { string_value: "1" } }',
        "session_profile": GOOD + 'parameters { key: "session.enable_profiling" value { string_value: "1" } }',
        "warm_up_billion": GOOD + _warm_up("count: 4294967295"),
        "warm_up_million_times": GOOD + _warm_up("count: 100000000"),
        "warm_up_batch_huge": GOOD + _warm_up("batch_size: 4294967295"),
        "warm_up_dims_huge": GOOD + _warm_up("", "9223372036854775807"),
        "warm_up_dims_overflow": GOOD + _warm_up("", "4294967296, 4294967296"),
        "warm_up_dims_negative": GOOD + _warm_up("", "-4"),
        "warm_ups_100_000": GOOD + _warm_up("count: 1") * 20_000,
        "warm_up_of_no_inputs": GOOD + 'model_warmup { name: "w" count: 1 }',
        "version_policy_all": GOOD + "version_policy { all { } }",
        "version_policy_latest_huge": GOOD + "version_policy { latest { num_versions: 4294967295 } }",
        "version_policy_negative": GOOD + "version_policy { specific { versions: [ -1, 0, 9223372036854775807 ] } }",
        "version_policy_none": GOOD + "version_policy { latest { num_versions: 0 } }",
        "version_policy_100_000": GOOD + "version_policy { specific { versions: [ " + "1, " * 100_000 + "1 ] } }",
        "cache": GOOD + "response_cache { enable: true }",
        "sequence": GOOD + "sequence_batching { max_sequence_idle_microseconds: 18446744073709551615 }",
        "file_name_path": GOOD + 'default_model_filename: "../../../etc/passwd"',
        "file_name_nul": GOOD + 'default_model_filename: "a\\000b"',
        "file_name_long": GOOD + f'default_model_filename: "{"f" * 5000}"',
        "file_name_dots": GOOD + 'default_model_filename: ".."',
        "file_name_folder": GOOD + 'default_model_filename: "."',
        "accelerator": GOOD
        + 'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } gpu_execution_accelerator { name: "tensorrt" } } }',
        "memory_shrinkage": GOOD
        + 'parameters { key: "memory.enable_memory_arena_shrinkage" value { string_value: "cpu:0;gpu:99999" } }',
    }.items():
        yield config(name, text)


def _warm_up(more, dims="4", data="zero_data: true"):
    return f'\nmodel_warmup {{ name: "w" batch_size: 1 {more} inputs {{ key: "x" value {{ data_type: TYPE_FP32 dims: [ {dims} ] {data} }} }} }}'.replace(
        "batch_size: 1 batch_size", "batch_size"
    )


def _files():
    labelled = GOOD.replace("dims: [ 4 ] } ]\n", 'dims: [ 4 ] label_filename: "labels.txt" } ]\n', 2).replace(
        'dims: [ 4 ] label_filename: "labels.txt" } ]\noutput', "dims: [ 4 ] } ]\noutput"
    )
    filed = GOOD + _warm_up("", data='input_data_file: "rows.bin"')

    def link(name, target):
        def make(folder):
            (folder / "warmup").mkdir(exist_ok=True)
            (folder / name).symlink_to(target)

        return make

    def fifo(name):
        def make(folder):
            (folder / "warmup").mkdir(exist_ok=True)
            os.mkfifo(folder / name)

        return make

    def sparse(name):
        def make(folder):
            (folder / "warmup").mkdir(exist_ok=True)
            with open(folder / name, "wb") as out:
                out.truncate(32 << 30)

        return make

    def content(name, data):
        def make(folder):
            (folder / "warmup").mkdir(exist_ok=True)
            (folder / name).write_bytes(data)

        return make

    for kind, name, text in (("labels", "labels.txt", labelled), ("rows", "warmup/rows.bin", filed)):
        yield config(f"{kind}_missing", text)
        yield config(f"{kind}_fifo", text, fifo(name))
        yield config(f"{kind}_zero", text, link(name, "/dev/zero"))
        yield config(f"{kind}_passwd", text, link(name, "/etc/passwd"))
        yield config(f"{kind}_itself", text, link(name, name.rsplit("/")[-1]))
        yield config(f"{kind}_folder", text, lambda folder, name=name: (folder / name).mkdir(parents=True))
        yield config(f"{kind}_of_32_gib", text, sparse(name))
        yield config(f"{kind}_not_utf8", text, content(name, b"\xff\xfe\n" * 10))
        yield config(f"{kind}_empty", text, content(name, b""))
        yield config(
            f"{kind}_unreadable",
            text,
            lambda folder, name=name: (content(name, b"a\nb\n")(folder), (folder / name).chmod(0)),
        )
    yield config("labels_million", labelled, content("labels.txt", b"label\n" * 2_000_000))
    yield config("labels_of_a_line", labelled, content("labels.txt", b"l" * (20 << 20)))
    yield config("labels_of_escapes", labelled, content("labels.txt", b"\x1b[2J\n\0\n\r\r\n"))
    for name, path in {
        "above": "../secret",
        "absolute": "/etc/passwd",
        "nul": "a\\000b",
        "long": "l" * 5000,
        "dot": ".",
    }.items():
        yield config(f"labels_path_{name}", labelled.replace("labels.txt", path))
        yield config(f"rows_path_{name}", filed.replace("rows.bin", path))

    def replaced(make):
        def arrange(folder):
            (folder / "config.pbtxt").unlink()
            make(folder / "config.pbtxt")

        return arrange

    yield config("fifo", "", replaced(os.mkfifo))
    yield config("folder", "", replaced(lambda at: at.mkdir()))
    yield config("link_to_zero", "", replaced(lambda at: at.symlink_to("/dev/zero")))
    yield config("link_to_passwd", "", replaced(lambda at: at.symlink_to("/etc/passwd")))
    yield config("link_dangling", "", replaced(lambda at: at.symlink_to("nowhere")))
    yield config("link_to_itself", "", replaced(lambda at: at.symlink_to("config.pbtxt")))
    yield config("link_to_memory", "", replaced(lambda at: at.symlink_to("/proc/self/mem")))
    yield config("unreadable", GOOD, lambda folder: (folder / "config.pbtxt").chmod(0))
