"""The policies of deploy/s3, as files and as a policy of a bucket."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.deployment import read

DRIVER, COLLECTOR, READER = "driver-and-workers.json", "collector.json", "reader.json"
POLICIES = (COLLECTOR, DRIVER, READER)


def statements(policy: str, *, bucket: str = "BUCKET", prefix: str = "PREFIX") -> list[Any]:
    """Return the statements of a policy, for a store."""
    text = read(f"s3/{policy}").replace("BUCKET", bucket).replace("PREFIX", prefix)
    found: list[Any] = json.loads(text)["Statement"]
    return found


def allows(policy: str, action: str, path: str) -> bool:
    """Return whether a policy allows an action on an object of the store, as IAM reads it."""
    name = f"arn:aws:s3:::BUCKET/PREFIX/{path}"
    for statement in statements(policy):
        given = statement["Resource"]
        for resource in [given] if isinstance(given, str) else given:
            pattern = re.escape(resource).replace(r"\*", ".*").replace(r"\?", ".")
            if action in statement["Action"] and re.fullmatch(pattern, name):
                return True
    return False


def of_users(users: dict[str, str], *, bucket: str, prefix: str) -> str:
    """Return a policy of a bucket that allows each user what its policy does.

    Args:
        users: file of the policy by name of the user.
        bucket: the bucket.
        prefix: of the store in it.
    """
    granted = [
        {
            **statement,
            "Sid": f"{user}{statement['Sid']}",
            "Principal": {"AWS": [f"arn:aws:iam:::user/{user}"]},
        }
        for user, policy in users.items()
        for statement in statements(policy, bucket=bucket, prefix=prefix)
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": granted})
