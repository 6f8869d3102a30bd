"""data/kubernetes: valid for the last versions, without rights that are not needed, and true to the daemon."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
from tools.source import ROOT

from ovirt_imageio.backends.allowed import Allowed
from ovirt_imageio.backends.image import check_url
from ovirt_imageio.config.sections import find_parsers
from ovirt_imageio.service import cli
from ovirt_imageio.version import __version__

yaml = pytest.importorskip("yaml")

FOLDER = ROOT / "data" / "kubernetes"
FILES = sorted(FOLDER.glob("*/*.yaml"))
RESOURCES = [path for path in FILES if path.name != "kustomization.yaml"]

# Of projects of their own: no schema of Kubernetes has them.
FOREIGN = {"ServiceMonitor"}

VERSIONS = 3


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def everything() -> list[dict[str, Any]]:
    return [document for path in RESOURCES for document in documents(path)]


def find(kind: str) -> list[dict[str, Any]]:
    return [document for document in everything() if document["kind"] == kind]


def pods() -> list[dict[str, Any]]:
    return [document["spec"]["template"]["spec"] for document in (*find("Deployment"), *find("Job"))]


def latest() -> list[str]:
    validate = pytest.importorskip("kubernetes_validate")
    major, minor, _ = validate.latest_version().split(".")
    return [f"{major}.{int(minor) - age}.0" for age in range(VERSIONS)]


@pytest.mark.parametrize("path", RESOURCES, ids=lambda path: path.name)
def test_valid(path):
    validate = pytest.importorskip("kubernetes_validate")
    for document in documents(path):
        if document["kind"] not in FOREIGN:
            for version in latest():
                validate.validate(document, version, strict=True)


def test_each_file_is_listed():
    for folder in {path.parent for path in FILES}:
        (listed,) = documents(folder / "kustomization.yaml")
        files = {path.name for path in folder.iterdir()} - {"kustomization.yaml"}
        generated = {name for item in listed.get("configMapGenerator", []) for name in item["files"]}
        assert {name for name in listed["resources"] if "/" not in name} | generated == files
        for image in listed.get("images", []):
            assert image["newTag"] == __version__


@pytest.mark.parametrize("number", range(2))
def test_no_rights_that_are_not_needed(number):
    pod = pods()[number]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


def test_selectors_find_the_pods():
    (deployment,) = find("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    for service in find("Service"):
        assert service["spec"]["selector"].items() <= labels
    assert find("PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"].items() <= labels
    assert find("NetworkPolicy")[0]["spec"]["podSelector"]["matchLabels"].items() <= labels
    monitored = find("ServiceMonitor")[0]["spec"]["selector"]["matchLabels"].items()
    assert [monitored <= service["metadata"]["labels"].items() for service in find("Service")] == [False, True]


def test_the_configuration_is_one():
    """Each key is known, and its value good."""
    parser = configparser.RawConfigParser()
    assert len(parser.read(FOLDER.glob("*/*.conf"))) == 3
    for section in parser.sections():
        # `keys` alone: [handlers] of the logging library.
        parsers = find_parsers(section)
        assert parsers is not None, section
        for key, value in parser[section].items():
            parsers[key](value)


def test_places_that_the_configuration_names_are_mounted():
    text = (FOLDER / "base" / "50-cluster.conf").read_text()
    mounts = {mount["mountPath"] for mount in pods()[0]["containers"][0]["volumeMounts"]}
    for path in re.findall(r"= (/\S+)|file://(/[^*\s]+)", text):
        name = "".join(path).rstrip("/")
        assert any(name == mount or name.startswith(f"{mount}/") for mount in mounts), name


def overlays() -> list[Path]:
    """Return the folders whose kustomization changes the deployment."""
    return [path.parent for path in FOLDER.glob("*/kustomization.yaml") if "patches" in documents(path)[0]]


def patched(overlay: Path) -> dict[str, Any]:
    """Return the deployment as an overlay makes it, by RFC 6902; each test in a patch must hold."""
    (deployment,) = find("Deployment")
    (listed,) = documents(overlay / "kustomization.yaml")
    (patch,) = listed["patches"]
    assert patch["target"] == {"kind": "Deployment", "name": deployment["metadata"]["name"]}
    for step in yaml.safe_load(patch["patch"]):
        *parents, last = (int(part) if part.isdigit() else part for part in step["path"].strip("/").split("/"))
        place: Any = deployment
        for part in parents:
            place = place[part]
        if step["op"] == "test":
            assert place[last] == step["value"]
        elif step["op"] == "remove":
            del place[last]
        else:
            is_there = isinstance(place, list) or last in place
            assert is_there == (step["op"] == "replace")
            place[last] = step["value"]
    return deployment


@pytest.mark.parametrize("overlay", overlays(), ids=lambda path: path.name)
def test_patches_meet_what_they_are_for(overlay):
    """What an overlay makes is valid, and each volume of it is used once."""
    deployment = patched(overlay)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    used = [item["name"] for item in (*container["volumeMounts"], *container.get("volumeDevices", []))]
    assert sorted(used) == sorted(volume["name"] for volume in pod["volumes"])
    assert "disks" not in [mount["name"] for mount in container["volumeMounts"]]
    validate = pytest.importorskip("kubernetes_validate")
    for version in latest():
        validate.validate(deployment, version, strict=True)


def test_devices_may_be_named():
    """A signed ticket for the device of a claim is permitted."""
    parser = configparser.RawConfigParser()
    parser.read(FOLDER / "block" / "60-block.conf")
    (container,) = patched(FOLDER / "block")["spec"]["template"]["spec"]["containers"]
    for device in container["volumeDevices"]:
        assert Allowed(parser["signed_tickets"]["allow"].split()).permits(f"file://{device['devicePath']}")


def test_what_a_cluster_permits_can_be_exported():
    """A signed ticket for an image needs both sections to agree."""
    parser = configparser.RawConfigParser()
    parser.read(FOLDER / "rbd" / "60-rbd.conf")
    assert Allowed(parser["export"]["allow"].split()).permits("rbd:vms/disk:id=imageio")
    assert Allowed(parser["signed_tickets"]["allow"].split()).permits("image:raw:rbd:vms/disk:id=imageio")
    check_url("image:raw:rbd:vms/disk:id=imageio")


def test_a_pod_has_time_to_drain():
    (deployment,) = find("Deployment")
    parser = configparser.RawConfigParser()
    parser.read(FOLDER / "base" / "50-cluster.conf")
    pod = deployment["spec"]["template"]["spec"]
    pause = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > float(parser["daemon"]["drain_timeout"]) + pause


def test_what_the_job_runs():
    (job,) = find("Job")
    container = job["spec"]["template"]["spec"]["containers"][0]
    options = cli.parse(container["args"])
    assert options.image == container["volumeDevices"][0]["devicePath"]
    assert options.listen == ("::", container["ports"][0]["containerPort"])
