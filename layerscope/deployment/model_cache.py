"""The volume on which models and datasets in use outlive a pod, and what keeps it from filling up."""

from __future__ import annotations

from typing import Any, Final

from layerscope.deployment.labels import PART_OF
from layerscope.deployment.release import tagged
from layerscope.deployment.services import SETTINGS, USER, confinement

NAME: Final = "model-cache"
FOLDER: Final = "/var/cache/layerscope"
UNREAD_DAYS: Final = 14
VOLUME: Final = {"name": "cache", "persistentVolumeClaim": {"claimName": NAME}}


def model_cache() -> tuple[dict[str, Any], ...]:
    """Return the claim, and a job that removes what nobody has read for long; who needs it again fetches it again."""
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "50Gi"}}}
    container = {
        "name": NAME,
        "image": tagged("layerscope-base"),
        "command": ["find", FOLDER, "-type", "f", "-atime", f"+{UNREAD_DAYS}", "-delete"],
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": confinement()["securityContext"],
        "volumeMounts": [{"name": "cache", "mountPath": FOLDER}],
    }
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": SETTINGS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"fsGroup": USER},
        "containers": [container],
        "volumes": [VOLUME],
    }
    job = {"ttlSecondsAfterFinished": 3600, "template": {"metadata": {"labels": {**PART_OF}}, "spec": pod}}
    metadata = {"name": NAME, "labels": {**PART_OF}}
    return (
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim},
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": metadata,
            "spec": {"schedule": "17 3 * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": job}},
        },
    )
