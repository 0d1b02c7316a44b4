"""Whether the API server has a kind at all.

A 404 for the kind's path does not prove that it is absent: an API server that is starting answers 404, and so do one
whose CRD is being registered again, and any proxy in front of it.
"""

from __future__ import annotations

from k8s.api.client import Api
from k8s.api.errors import ApiError, Unreachable
from k8s.api.resource import Resource

_REFUSALS = (401, 403)


def is_absent(api: Api, resource: Resource) -> bool:
    """What the discovery documents say after a 404. Ask several times, since they may be incomplete as well when the
    server is starting. Where we have no right to read them, the 404 counts. Kinds of the core group are never absent.
    """
    if not resource.path.startswith("/apis/"):
        return False
    group = resource.group_version.partition("/")[0]
    try:
        groups = {each["name"]: each.get("versions") or () for each in api.get("/apis", {})["groups"]}
        if resource.group_version not in [each.get("groupVersion") for each in groups.get(group, ())]:
            return True
        kinds = [each["name"] for each in api.get(f"/apis/{resource.group_version}", {})["resources"]]
    except ApiError as error:
        return error.status in _REFUSALS
    except (Unreachable, AttributeError, KeyError, TypeError):  # no answer, or not a discovery document
        return False
    return resource.path.rpartition("/")[2] not in kinds
