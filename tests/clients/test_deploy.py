"""What `deploy/` holds is valid, names only settings that Weir has, and its numbers go together.

The files are held against the real thing: Kubernetes' own schemas, and the binary's `--help` and `check-config`.
test_balancers.py starts the balancers.
"""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from balancers import DEPLOY
from server import binary

ROOT = DEPLOY.parent
KUBERNETES = DEPLOY / "kubernetes"
KUBERNETES_VERSION = "1.37"
SETTINGS_FILES = sorted(DEPLOY.glob("*/weir.toml"))
# How long the last session call may take once everything else has ended (`LAST_CALL` in src/app.rs), twice.
LAST_CALL_SECONDS = 4
# test_balancers.py shows that Weir keeps an unused connection longer than this.
IDLE_SECONDS_MAX = 20


def weir(*arguments):
    # Settings of whoever runs the tests are none of these files'.
    own = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")}
    return subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=60, env=own)


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def manifests():
    for path in sorted(KUBERNETES.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from documents(path)


def manifest(kind, name="weir"):
    (found,) = [m for m in manifests() if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def pod():
    return manifest("Deployment")["spec"]["template"]["spec"]


def container():
    (one,) = pod()["containers"]
    return one


def unit():
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str
    parser.read_string((DEPLOY / "systemd" / "weir.service").read_text())
    return parser["Service"]


def instructions():
    """The Dockerfile's instructions, each with its text on one line."""
    text = (DEPLOY / "docker" / "Dockerfile").read_text()
    text = re.sub(r"(?m)^#.*\n", "", text).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def instruction(name):
    """The last instruction of that name, which is the one that counts."""
    return [text for instruction, text in instructions() if instruction == name][-1]


def settings(folder):
    return tomllib.loads((DEPLOY / folder / "weir.toml").read_text())


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s)?", text).groups()
    return int(number) / (1000 if unit == "ms" else 1)


def one(file, pattern):
    """What the pattern's group matches in a file; the same wherever it matches."""
    found = set(re.findall(pattern, (DEPLOY / file).read_text(), re.MULTILINE))
    assert len(found) == 1, f"{file}: {pattern}: {found}"
    return found.pop()


# ── Settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", SETTINGS_FILES, ids=lambda path: path.parent.name)
def test_settings_are_those_of_the_binary(path):
    # The folders that they name are not on this machine.
    checked = weir("check-config", "--config", str(path), "--models", str(ROOT / "models"))
    assert checked.returncode == 0, checked.stderr + checked.stdout
    in_force = tomllib.loads(checked.stdout)
    written = tomllib.loads(path.read_text())
    for key in written.keys() - {"models"}:
        assert in_force[key] == written[key], key


def test_a_setting_that_the_binary_does_not_have_would_be_noticed(tmp_path):
    wrong = tmp_path / "weir.toml"
    wrong.write_text("drain_secs = 60\n")
    assert weir("check-config", "--config", str(wrong), "--models", str(ROOT / "models")).returncode != 0
    assert weir("serve", "--drain-secs", "60", "--help").returncode != 0


def commands():
    """Each command line of Weir in `deploy/`, without the program."""
    program, *words = shlex.split(unit()["ExecStart"])
    yield program, words
    (entry,) = json.loads(instruction("ENTRYPOINT"))
    yield entry, json.loads(instruction("CMD"))
    health = json.loads(instruction("HEALTHCHECK").split("CMD", 1)[1])
    yield health[0], health[1:]
    yield entry, container()["args"]


@pytest.mark.parametrize("program, words", list(commands()), ids=lambda part: " ".join(part) if isinstance(part, list) else "")
def test_command_lines_are_understood(program, words):
    assert program == "/opt/weir/weir"
    # Read up to its last word: it answers with help only where it knew all before.
    understood = weir(*words, "--help")
    assert understood.returncode == 0, understood.stderr


def test_options_that_files_mention_exist():
    known = set(re.findall(r"--[a-z][a-z-]+", weir("--help").stdout))
    keys = {option[2:].replace("-", "_") for option in known}
    for path in sorted(DEPLOY.rglob("*")):
        if path.suffix not in (".cfg", ".conf", ".yaml", ".toml", ".service"):
            continue
        text = path.read_text()
        for option in re.findall(r"(?<![\w-])--(?:max|drain|control|connection)[a-z-]*", text):
            assert option in known, f"{path}: {option}"
        for key in re.findall(r"\b(?:drain|max)_[a-z_]*seconds[a-z_]*", text):
            assert key in keys, f"{path}: {key}"
    rows = re.findall(r"(?m)^\| .* \| (.*) \|$", (DEPLOY / "README.md").read_text().split("## Coming from Triton")[1])
    replaced = set(re.findall(r"--[a-z-]+", " ".join(rows)))
    assert len(replaced) > 5 and replaced <= known, replaced - known


# ── Numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("folder", ["systemd", "docker", "kubernetes"])
def test_balancers_notice_a_drain_before_ports_close_and_wait_no_longer_than_a_drain(folder):
    ours = settings(folder)
    delay, drain = ours["drain_delay_seconds"], ours["drain_seconds"]

    server = r"default-server .*\b{} (\w+)"
    checks = int(one("haproxy/haproxy.cfg", server.format("fall")))
    every = seconds(one("haproxy/haproxy.cfg", server.format("inter")))
    check = seconds(one("haproxy/haproxy.cfg", r"^\s+timeout check (\w+)"))
    assert checks * every + check < delay
    for end in ("client", "server"):
        assert seconds(one("haproxy/haproxy.cfg", rf"^\s+timeout {end} (\w+)")) <= drain
    assert seconds(one("haproxy/haproxy.cfg", r"hard-stop-after (\w+)")) > drain

    for protocol in ("proxy", "grpc"):
        assert seconds(one("nginx/nginx.conf", rf"{protocol}_read_timeout (\w+)")) <= drain
    assert seconds(one("nginx/nginx.conf", r"worker_shutdown_timeout (\w+)")) > drain

    every = seconds(one("envoy/envoy.yaml", r"^      interval: (\w+)$"))
    check = seconds(one("envoy/envoy.yaml", r"- timeout: (\w+)$"))
    # Any answer but 200 puts a host out at once; silence does after as many checks as the threshold says.
    checks = int(one("envoy/envoy.yaml", r"unhealthy_threshold: (\d+)"))
    assert checks * (every + check) < delay
    assert seconds(one("envoy/envoy.yaml", r"^                  timeout: ([1-9]\w*)$")) <= drain

    probe = container()["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"] < delay


def test_supervisors_wait_for_the_whole_drain():
    def whole(folder):
        ours = settings(folder)
        return ours["drain_delay_seconds"] + ours["drain_seconds"] + LAST_CALL_SECONDS

    assert seconds(unit()["TimeoutStopSec"]) > whole("systemd")
    hook = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod()["terminationGracePeriodSeconds"] > hook + whole("kubernetes")
    (stop,) = set(re.findall(r"--stop-timeout (\d+)", (DEPLOY / "docker" / "Dockerfile").read_text()))
    assert int(stop) > whole("docker")
    # Balancers have seen that a replica is gone before it is there again and loads.
    assert seconds(unit()["RestartSec"]) > int(one("haproxy/haproxy.cfg", r"\bfall (\d+)"))
    assert seconds(unit()["RestartSec"]) > int(one("envoy/envoy.yaml", r"unhealthy_threshold: (\d+)"))
    assert unit()["KillSignal"] == "SIGTERM" == instruction("STOPSIGNAL")


def test_limits_are_those_of_the_binary():
    in_force = tomllib.loads(weir("check-config", "--models", str(ROOT / "models")).stdout)
    body = in_force["max_message_bytes"]
    assert int(one("haproxy/haproxy.cfg", r"content-length\) gt (\d+)")) == body
    assert int(one("nginx/nginx.conf", r"client_max_body_size (\d+)m;")) << 20 == body
    streams = in_force["max_streams"]
    assert int(one("haproxy/haproxy.cfg", r"max-concurrent-streams (\d+)")) == streams
    assert int(one("nginx/nginx.conf", r"http2_max_concurrent_streams (\d+)")) == streams
    assert int(one("envoy/envoy.yaml", r"max_concurrent_streams: (\d+)")) == streams
    assert int(one("envoy/envoy.yaml", r"max_connections: (\d+)")) >= in_force["max_requests_in_flight"]


def test_unused_connections_go_from_the_balancers_end():
    assert seconds(one("haproxy/haproxy.cfg", r"pool-purge-delay (\w+)")) <= IDLE_SECONDS_MAX
    # The one for clients stands outside of `upstream`.
    assert seconds(one("nginx/nginx.conf", r"^        keepalive_timeout (\w+);")) <= IDLE_SECONDS_MAX
    idle = one("envoy/envoy.yaml", r"common_http_protocol_options: \{idle_timeout: (\w+)\}")
    assert seconds(idle) <= IDLE_SECONDS_MAX


def test_ports_agree():
    ports = {"http": 8000, "grpc": 8001, "metrics": 8002}
    for folder in ("systemd", "docker", "kubernetes"):
        ours = settings(folder)
        assert {name: int(ours[name].rsplit(":", 1)[1]) for name in ports} == ports, folder
        # The control API is reached by those who are on the machine, in the container, in the pod.
        mode, control = ours["control"]
        assert mode == "watch" and control == "127.0.0.1:8003"
    assert {p["name"]: p["containerPort"] for p in container()["ports"]} == ports
    assert instruction("EXPOSE").split() == [str(port) for port in ports.values()]
    assert instruction("ENV") == "WEIR_SERVER=http://127.0.0.1:8003"
    for service in ("weir", "weir-replicas"):
        for port in manifest("Service", service)["spec"]["ports"]:
            assert port["targetPort"] == port["name"] and port["port"] == ports[port["name"]]


# ── Kubernetes ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("resource", list(manifests()), ids=lambda r: f"{r['kind']}-{r['metadata']['name']}")
def test_manifests_keep_to_kubernetes_schemas(resource):
    kubernetes_validate.validate(resource, KUBERNETES_VERSION, strict=True)


def test_a_key_that_kubernetes_does_not_have_would_be_noticed():
    wrong = manifest("Deployment")
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 90
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES_VERSION, strict=True)


def test_the_kustomization_names_every_manifest_and_the_files_it_makes_maps_of():
    (kustomization,) = documents(KUBERNETES / "kustomization.yaml")
    assert set(kustomization["resources"]) == {
        path.name for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml"
    }
    maps = {made["name"]: made["files"] for made in kustomization["configMapGenerator"]}
    for file in sum(maps.values(), []):
        assert (KUBERNETES / file).is_file(), file
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert {v["configMap"]["name"] for v in volumes.values() if "configMap" in v} == maps.keys()
    claim = volumes["models"]["persistentVolumeClaim"]["claimName"]
    assert manifest("PersistentVolumeClaim", claim)
    assert {mount["name"] for mount in container()["volumeMounts"]} == volumes.keys()
    (image,) = kustomization["images"]
    assert image["name"] == container()["image"]


def test_selectors_find_the_pods():
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        manifest("Deployment")["spec"]["selector"]["matchLabels"],
        manifest("Service")["spec"]["selector"],
        manifest("Service", "weir-replicas")["spec"]["selector"],
        manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in pod()["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector and selector.items() <= labels.items()
    allowed = [p["port"] for rule in manifest("NetworkPolicy")["spec"]["ingress"] for p in rule["ports"]]
    assert set(allowed) == {port["name"] for port in container()["ports"]}


def test_a_replica_goes_only_when_another_is_ready():
    spec = manifest("Deployment")["spec"]
    assert spec["replicas"] >= 2 and spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    probes = {name: container()[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe["port"] for probe in probes.values()} == {"http"}
    assert probes["readinessProbe"]["path"] == "/v2/health/ready"
    # A replica that loads or drains is alive.
    assert probes["livenessProbe"]["path"] == probes["startupProbe"]["path"] == "/v2/health/live"


def test_the_pod_keeps_to_the_restricted_profile_of_its_namespace():
    assert manifest("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    security = pod()["securityContext"]
    assert security["runAsNonRoot"] and security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(pod())
    # What is written to is a volume of its own; the rest is for reading.
    written = {m["mountPath"] for m in container()["volumeMounts"] if not m.get("readOnly")}
    assert written == {settings("kubernetes")["state"], "/tmp"}


def test_the_files_that_settings_name_are_mounted():
    mounts = {m["mountPath"] for m in container()["volumeMounts"]}
    ours = settings("kubernetes")
    assert ours["models"] in mounts and str(Path(ours["routes"]).parent) in mounts
    assert container()["args"][-1] in mounts
    assert tomllib.loads((KUBERNETES / Path(ours["routes"]).name).read_text()) == {}


# ── Docker ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def copied():
    """What the Dockerfile copies out of the source tree."""
    for name, text in instructions():
        if name == "COPY" and "--from" not in text:
            yield from text.split()[:-1]


def test_the_image_copies_what_is_there_and_what_the_builder_is_given():
    given = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert [line for line in given if line and not line.startswith(("#", "!"))] == ["*"]
    assert {line[1:] for line in given if line.startswith("!")} == set(copied())
    for source in copied():
        assert (ROOT / source).exists(), source
    made = "".join(text for name, text in instructions() if name == "RUN")
    for name, text in instructions():
        if name == "COPY" and "--from" in text:
            assert text.split()[-2] in made, text


def test_cargo_needs_nothing_that_the_image_does_not_copy(tmp_path):
    for source in copied():
        if source.startswith("deploy/"):
            continue
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / source)
        else:
            shutil.copy(ROOT / source, tmp_path / source)
    metadata = subprocess.run(
        ["cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert metadata.returncode == 0, metadata.stderr
    # Files that are built into the binary come from the same folders.
    for path in (tmp_path / "src").rglob("*.rs"):
        for included in re.findall(r"include_(?:str|bytes)!\(\s*\"([^\"]+)\"", path.read_text()):
            assert (path.parent / included).resolve().is_file(), f"{path}: {included}"


def test_the_image_runs_as_nobody_and_matches_what_kubernetes_mounts():
    user = f"{pod()['securityContext']['runAsUser']}:{pod()['securityContext']['runAsGroup']}"
    assert instruction("USER") == user
    assert settings("docker")["state"] == settings("kubernetes")["state"] == "/var/lib/weir"
    assert any("/out/state" in text and f"--chown={user}" in text for name, text in instructions() if name == "COPY")
    rust = re.search(r'rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text())[1]
    assert any(name == "FROM" and text.startswith(f"rust:{rust}-") for name, text in instructions())


# ── systemd ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit_and_holds_it_for_safe(tmp_path):
    # What it starts must exist where it is verified.
    text = (DEPLOY / "systemd" / "weir.service").read_text()
    path = tmp_path / "weir.service"
    path.write_text(text.replace("/opt/weir/weir", binary()))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=60
    )
    assert verified.returncode == 0 and "weir.service" not in verified.stderr, verified.stderr
    # Tenths of systemd's measure of exposure, from 0 to 100; a unit without any of this has 96.
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert rated.returncode == 0, rated.stdout + rated.stderr


def test_the_unit_has_a_state_folder_where_settings_look_for_it():
    assert settings("systemd")["state"] == f"/var/lib/{unit()['StateDirectory']}"
    assert unit()["ExecStart"].endswith("--config /etc/weir/weir.toml")
