"""What perf_analyzer does: reads metadata, config and statistics, sends concurrently, and compares statistics."""

from concurrent.futures import ThreadPoolExecutor

import pytest

import samples
import wire

CONCURRENCY, REQUESTS = 8, 96
DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")


def stats(http, model):
    """The statistics of the model's version that answers by default."""
    items = http.get(wire.model_path(model, last="stats")).json()["model_stats"]
    return next(item for item in items if item["version"] == str(samples.LATEST[model]))


@pytest.mark.parametrize("model", samples.BUNDLED)
def test_metadata_and_config_agree_on_names_and_batching(http, model):
    metadata = http.get(wire.model_path(model)).json()
    config = http.get(wire.model_path(model, last="config")).json()
    assert metadata["name"] == config["name"] == model
    assert metadata["versions"] and metadata["platform"] == config["platform"]
    for side, ports in (("inputs", config["input"]), ("outputs", config["output"])):
        assert [p["name"] for p in metadata[side]] == [p["name"] for p in ports]
        for port in metadata[side]:
            assert set(port) >= {"name", "datatype", "shape"}
            if config.get("max_batch_size", 0) > 0:
                assert port["shape"][0] == -1


@pytest.mark.parametrize("model", samples.BUNDLED)
def test_config_has_no_word_of_schedulers_that_do_not_run(http, model):
    config = http.get(wire.model_path(model, last="config")).json()
    assert isinstance(config.get("max_batch_size", 0), int)
    assert "sequence_batching" not in config and "ensemble_scheduling" not in config
    assert not config.get("model_transaction_policy", {}).get("decoupled", False)
    assert not config.get("response_cache", {}).get("enable", False)
    for port in config["input"]:
        assert not port.get("optional", False) and not port.get("is_shape_tensor", False)


def test_server_metadata_advertises_only_known_extensions(http):
    known = {
        "classification", "sequence", "model_repository", "model_repository(unload_dependents)", "schedule_policy",
        "model_configuration", "system_shared_memory", "cuda_shared_memory", "binary_tensor_data", "parameters",
        "statistics", "trace", "logging", "generate",
    }  # fmt: skip
    metadata = http.get("/v2").json()
    assert set(metadata) == {"name", "version", "extensions"}
    assert set(metadata["extensions"]) <= known
    assert {"binary_tensor_data", "statistics", "model_configuration"} <= set(metadata["extensions"])


@pytest.mark.parametrize("model", samples.BUNDLED)
def test_statistics_have_every_field(http, model):
    item = stats(http, model)
    assert item["name"] == model and isinstance(item["version"], str)
    for count in ("last_inference", "inference_count", "execution_count"):
        assert isinstance(item[count], int), count
    assert set(DURATIONS) <= set(item["inference_stats"])
    for batch in item["batch_stats"]:
        assert batch["batch_size"] >= 1
        assert {"compute_input", "compute_infer", "compute_output"} <= set(batch)
    durations = [item["inference_stats"][name] for name in DURATIONS]
    durations += [batch[name] for batch in item["batch_stats"] for name in batch if name != "batch_size"]
    assert all(isinstance(d["count"], int) and isinstance(d["ns"], int) for d in durations)


def test_statistics_of_all_models_list_every_version(http, weir):
    items = http.get("/v2/models/stats").json()["model_stats"]
    listed = sorted((item["name"], int(item["version"])) for item in items)
    paths = (path.parent for path in weir.models.glob("[!.]*/*/model.onnx"))
    assert listed == sorted((path.parent.name, int(path.name)) for path in paths)


@pytest.mark.parametrize("model, rows", [("digits", 1), ("digits", 3), ("simple", 1), ("breast_cancer", 2)])
def test_statistics_grow_by_exactly_what_was_sent(weir, http, way, model, rows):
    feed = samples.BUNDLED[model](rows)
    batched = http.get(wire.model_path(model, last="config")).json().get("max_batch_size", 0) > 0
    before = stats(http, model)

    def one_client(_):
        asked = way(weir)
        for _ in range(REQUESTS // CONCURRENCY):
            asked.infer(model, feed)
        asked.close()

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        list(pool.map(one_client, range(CONCURRENCY)))
    after = stats(http, model)

    def grown(read):
        return read(after) - read(before)

    # A model that is not batched counts one inference for each request, whatever its first dimension.
    inferences = REQUESTS * rows if batched else REQUESTS
    assert grown(lambda s: s["inference_count"]) == inferences
    assert grown(lambda s: s["inference_stats"]["success"]["count"]) == REQUESTS
    assert grown(lambda s: s["inference_stats"]["fail"]["count"]) == 0
    for part in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert grown(lambda s, part=part: s["inference_stats"][part]["count"]) == REQUESTS, part
    executions = grown(lambda s: s["execution_count"])
    assert 1 <= executions <= REQUESTS
    assert grown(lambda s: sum(b["compute_infer"]["count"] for b in s["batch_stats"])) == executions
    if batched:
        runs_times_rows = grown(lambda s: sum(b["batch_size"] * b["compute_infer"]["count"] for b in s["batch_stats"]))
        assert runs_times_rows == inferences
    assert grown(lambda s: s["inference_stats"]["success"]["ns"]) > 0
    assert after["last_inference"] >= before["last_inference"] and after["last_inference"] > 1_600_000_000_000


def test_failures_are_not_counted_as_successes(http):
    before = stats(http, "digits")
    bad = {"image": samples.digits(1)["image"][:, :3]}
    assert http.post("/v2/models/digits/infer", wire.json_request(bad)).status == 400
    after = stats(http, "digits")
    assert after["inference_stats"]["success"]["count"] == before["inference_stats"]["success"]["count"]
    assert after["inference_count"] == before["inference_count"]
