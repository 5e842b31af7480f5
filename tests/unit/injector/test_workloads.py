"""The workload a person would name, from what a pod says of its owner."""

from __future__ import annotations

import pytest

from sidecar.injector.workloads import Workload, of_pod


@pytest.mark.parametrize(
    ("metadata", "workload"),
    [
        ({"name": "shop"}, Workload("Pod", "shop")),
        ({"generateName": "shop-"}, Workload("Pod", "shop")),
        ({}, Workload("Pod", "")),
        (("ReplicaSet", "shop-5d4f", {"pod-template-hash": "5d4f"}), Workload("Deployment", "shop")),
        (("ReplicaSet", "shop-5d4f", {"rollouts-pod-template-hash": "5d4f"}), Workload("Rollout", "shop")),
        (("ReplicaSet", "shop-5d4f", {"pod-template-hash": "other"}), Workload("ReplicaSet", "shop-5d4f")),
        (("ReplicaSet", "shop-5d4f", {}), Workload("ReplicaSet", "shop-5d4f")),
        (("ReplicationController", "shop-3", {"deploymentconfig": "shop"}), Workload("DeploymentConfig", "shop")),
        (("ReplicationController", "shop", {}), Workload("ReplicationController", "shop")),
        (("Job", "tidy-28912345", {}), Workload("CronJob", "tidy")),
        (("Job", "tidy-1234567", {}), Workload("Job", "tidy-1234567")),
        (("StatefulSet", "shop", {}), Workload("StatefulSet", "shop")),
    ],
)
def test_the_owner_is_who_somebody_wrote(metadata, workload):
    if isinstance(metadata, tuple):
        kind, name, labels = metadata
        metadata = {"labels": labels, "ownerReferences": [{"kind": kind, "name": name, "controller": True}]}

    assert of_pod({"metadata": metadata}) == workload


def test_only_the_controller_counts():
    reference = {"kind": "StatefulSet", "name": "other", "controller": False}

    assert of_pod({"metadata": {"name": "shop", "ownerReferences": [reference, None]}}) == Workload("Pod", "shop")
