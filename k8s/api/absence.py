"""Whether the API server has a kind at all.

A 404 for the kind's path does not prove that the kind is absent: an API server also answers 404 while it starts or
while it registers the CRD again, and a proxy in front of it may answer 404 at any time.
"""

from __future__ import annotations

from k8s.api.client import Api
from k8s.api.errors import REFUSALS, ApiError, Unreachable
from k8s.api.resource import Resource


def is_absent(api: Api, resource: Resource) -> bool:
    """What the discovery documents say after a 404. They may be incomplete, too, while the server starts, so call this
    several times. True if we have no right to read them, since then nothing contradicts the 404. False for kinds of the
    core group, which are never absent."""
    if not resource.path.startswith("/apis/"):
        return False
    group = resource.group_version.partition("/")[0]
    try:
        groups = {each["name"]: each.get("versions") or () for each in api.get("/apis", {})["groups"]}
        if resource.group_version not in [each.get("groupVersion") for each in groups.get(group, ())]:
            return True
        kinds = [each["name"] for each in api.get(f"/apis/{resource.group_version}", {})["resources"]]
    except ApiError as error:
        return error.status in REFUSALS
    except (Unreachable, AttributeError, KeyError, TypeError):  # no answer, or not a discovery document
        return False
    return resource.path.rpartition("/")[2] not in kinds
