"""Whether the API server has a kind at all: a 404 of its path alone does not tell.

An API server that is starting answers so, and one whose CRD is being registered again, and any proxy before it.
"""

from __future__ import annotations

from k8s.api.client import Api
from k8s.api.errors import ApiError, Unreachable
from k8s.api.resource import Resource

_REFUSALS = (401, 403)


def is_absent(api: Api, resource: Resource) -> bool:
    """What discovery says after a 404, in a document that must be there; ask several times, it may be in the making as
    well. Where we may not read discovery, the 404 alone counts. Kinds of the core are always there."""
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
    except (Unreachable, AttributeError, KeyError, TypeError):  # no answer, or one that makes no sense
        return False
    return resource.path.rpartition("/")[2] not in kinds
