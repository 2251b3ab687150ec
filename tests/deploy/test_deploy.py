"""The container files and manifests against the command line, the server and each other; nothing is built."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import herd
from herd.cli import parser
from herd.serve.app import create_app
from herd.serve.settings import ServeSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONTAINERFILES = ("Containerfile", "Containerfile.vllm")
DEPLOYMENTS = ("herd", "vllm", "vllm-405b")


def instructions(name):
    """(instruction, rest) of a container file, continued lines joined."""
    lines, found = (DEPLOY / name).read_text().replace("\\\n", " ").splitlines(), []
    for line in lines:
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            found.append((word, " ".join(rest.split())))
    return found


def last(name, word):
    return [rest for one, rest in instructions(name) if one == word][-1]


def manifests(name):
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / f"{name}.yaml").read_text()))


def one(documents, kind):
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


COMMON = manifests("common")


def pod(name):
    return one(manifests(name), "Deployment")["spec"]["template"]


def container(name):
    (found,) = pod(name)["spec"]["containers"]
    return found


def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def commands():
    """Every command line in the folder."""
    for name in CONTAINERFILES:
        yield name, yaml.safe_load(last(name, "CMD"))
    for name in DEPLOYMENTS:
        yield name, container(name)["args"]
    for name, service in compose()["services"].items():
        yield name, [part.replace("${GPUS:-1}", "1") for part in service["command"]]


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_command_line_takes_every_flag(name, command):
    options = parser().parse_args(command)
    assert (options.host, options.port) == ("0.0.0.0", 8000)
    assert options.model.is_relative_to("/models")
    assert options.engine == ("vllm" if "vllm" in name else "herd")
    assert not options.no_key
    assert not options.api_key, "`ps` would show it"
    ServeSettings(name="x", max_running=options.max_running, max_queue=options.max_queue)
    if options.engine == "herd":
        assert options.tensor_parallel == 1
    else:
        assert not any((options.fp8, options.cache_gb, options.cache_tokens, options.cache_dtype))


def test_the_readme_s_command_line_is_one():
    (line,) = [line for line in (DEPLOY / "README.md").read_text().splitlines() if line.startswith("    herd serve")]
    options = parser().parse_args(shlex.split(line)[1:])
    assert (options.tensor_parallel, options.pipeline_parallel) == (8, 2)


@pytest.mark.parametrize("name", CONTAINERFILES)
def test_images(name):
    assert last(name, "USER") == "10001:10001"
    assert last(name, "EXPOSE") == "8000"
    assert yaml.safe_load(last(name, "ENTRYPOINT")) == ["herd"]
    assert "http://127.0.0.1:8000/health'" in last(name, "HEALTHCHECK")
    ignored = (ROOT / ".dockerignore").read_text().split()
    for word, rest in instructions(name):
        if word == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert source not in ignored
        if word == "FROM":
            assert ":latest" not in rest
            assert ":" in rest


def test_routes_of_probes_and_metrics_exist():
    app = create_app(SimpleNamespace(), ServeSettings(name="x"), ())
    paths = {getattr(route, "path", "") for route in app.routes} | set(app.openapi()["paths"])
    for name in DEPLOYMENTS:
        probes = [container(name)[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")]
        assert {*probes, pod(name)["metadata"]["annotations"]["prometheus.io/path"]} <= paths


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pods_are_whole(name):
    spec, held = pod(name)["spec"], container(name)
    assert {mount["name"] for mount in held["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    (port,) = held["ports"]
    options = parser().parse_args(held["args"])
    assert port["containerPort"] == options.port
    assert pod(name)["metadata"]["annotations"]["prometheus.io/port"] == str(options.port)
    for kind in ("startup", "readiness", "liveness"):
        assert held[f"{kind}Probe"]["httpGet"]["port"] == port["name"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    keys = next(mount["mountPath"] for mount in held["volumeMounts"] if mount["name"] == "keys")
    assert [str(options.api_key_file)] == [f"{keys}/{item['path']}" for item in volumes["keys"]["secret"]["items"]]
    assert held["env"][0]["valueFrom"]["secretKeyRef"]["name"] == volumes["keys"]["secret"]["secretName"]
    claim = one(COMMON, "PersistentVolumeClaim")["metadata"]["name"]
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim
    assert held["image"] == f"{'herd-vllm' if 'vllm' in name else 'herd'}:{herd.__version__}"
    assert held["resources"]["requests"].get("nvidia.com/gpu") == held["resources"]["limits"].get("nvidia.com/gpu")
    gpus = held["resources"]["limits"].get("nvidia.com/gpu", 0)
    assert gpus == (options.tensor_parallel * options.pipeline_parallel if options.engine == "vllm" else 0)
    assert ("shm" in volumes) == (options.engine == "vllm")


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pods_have_no_rights_that_they_do_not_need(name):
    spec, held = pod(name)["spec"], container(name)
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec["automountServiceAccountToken"]
    assert held["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(mount.get("readOnly") for mount in held["volumeMounts"] if mount["name"] in ("models", "keys"))
    assert spec["terminationGracePeriodSeconds"] > ServeSettings(name="x").drain_seconds


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_selectors_find_their_pods(name):
    deployment = one(manifests(name), "Deployment")
    labels = pod(name)["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    service, policy = one(COMMON, "Service"), one(COMMON, "NetworkPolicy")
    assert service["spec"]["selector"].items() <= labels.items()
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["ports"][0]["targetPort"] == container(name)["ports"][0]["name"]
    assert policy["spec"]["ingress"][0]["ports"][0]["port"] == container(name)["ports"][0]["containerPort"]
    namespace = one(COMMON, "Namespace")["metadata"]["name"]
    assert {d["metadata"].get("namespace", namespace) for d in [*COMMON, deployment]} == {namespace}
    assert pod(name)["spec"]["serviceAccountName"] == one(COMMON, "ServiceAccount")["metadata"]["name"]


def test_no_secret_stands_in_the_folder():
    assert not [
        document for name in (*DEPLOYMENTS, "common") for document in manifests(name) if document["kind"] == "Secret"
    ]


@pytest.mark.parametrize("name", ["herd", "herd-vllm"])
def test_compose(name):
    service = compose()["services"][name]
    dockerfile = service["build"]["dockerfile"]
    assert (ROOT / dockerfile).is_file()
    assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
    (port,) = service["ports"]
    assert port.startswith("127.0.0.1:")
    assert port.endswith(":8000")
    assert "127.0.0.1:8000/health" in service["healthcheck"]["test"][-1]
    (secret,) = service["secrets"]
    assert secret in compose()["secrets"]
    assert f"/run/secrets/{secret}" in service["command"]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"]
    assert float(service["stop_grace_period"].removesuffix("s")) > ServeSettings(name="x").drain_seconds
