"""LocalRedirectPolicy manifests for tests of the CRD: good ones, and bad ones with what the API server must say.

Where the agent's own reader (k8s/objects/policy.py) judges a case otherwise than the API server, the case says why.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tests.cluster.api import Json

DELETE = object()
FRONT = "spec/frontend/addressMatcher"
SERVICE = "spec/frontend/serviceMatcher"
BACK = "spec/backend"
SELECTOR = f"{BACK}/endpointSelector"
EXPRESSIONS = f"{SELECTOR}/matchExpressions"
CONFIG = "spec/config"
NODES = f"{CONFIG}/nodeLabelSelector"
CHECK = f"{BACK}/healthCheck"
ANNOTATION = "balancing.elf.io/serviceId"


def address_policy() -> Json:
    return {
        "apiVersion": "balancing.elf.io/v1beta1",
        "kind": "LocalRedirectPolicy",
        "metadata": {"name": "p"},
        "spec": {
            "frontend": {"addressMatcher": {"ip": "169.254.0.90", "toPorts": [{"port": 80}]}},
            "backend": {"endpointSelector": {"matchLabels": {"app": "a"}}, "toPorts": [{"port": "8080"}]},
        },
    }


def service_policy() -> Json:
    policy = address_policy()
    policy["spec"]["frontend"] = {"serviceMatcher": {"serviceName": "s", "namespace": "n", "toPorts": [{"port": 80}]}}
    return policy


def changed(policy: Json, changes: Mapping[str, object]) -> Json:
    """A copy with other values: path -> value. DELETE removes the field."""
    policy = copy.deepcopy(policy)
    for path, value in changes.items():
        *parents, last = path.split("/")
        target = policy
        for part in parents:
            target = target.setdefault(part, {})
        if value is DELETE:
            del target[last]
        else:
            target[last] = copy.deepcopy(value)
    return policy


def port(number: object, name: object = None, protocol: object = None) -> Json:
    given = {"port": number, "name": name, "protocol": protocol}
    return {key: value for key, value in given.items() if value is not None}


def ports(count: int) -> list[Json]:
    return [port(1000 + index, f"p{index}") for index in range(count)]


def expression(key: object, operator: object, values: Sequence[object] | None = None) -> list[Json]:
    requirement = {"key": key, "operator": operator}
    return [requirement if values is None else {**requirement, "values": list(values)}]


class Bad(NamedTuple):
    name: str
    policy: Json
    path: str
    """The field that the API server must name."""
    says: str
    """A part of the message that the API server must give."""
    agent_accepts: str = ""
    """Why the agent accepts it nevertheless. Empty: the agent refuses it, too."""


def _address(name: str, path: str, value: object, field: str, says: str, agent_accepts: str = "") -> Bad:
    return Bad(name, changed(address_policy(), {path: value}), field, says, agent_accepts)


def _service(name: str, path: str, value: object, field: str, says: str, agent_accepts: str = "") -> Bad:
    return Bad(name, changed(service_policy(), {path: value}), field, says, agent_accepts)


def _check(name: str, check: object, field: str, says: str, *, protocol: str = "TCP") -> Bad:
    """A wrong check in a policy that has one port, of this protocol. `field` is the path below the check."""
    given = {
        CHECK: check,
        f"{FRONT}/toPorts": [port(1, protocol=protocol)],
        f"{BACK}/toPorts": [port(2, protocol=protocol)],
    }
    return Bad(name, changed(address_policy(), given), f"spec.backend.healthCheck{field}", says)


def _partners(name: str, front: list[Json], back: list[Json], field: str, says: str) -> list[Bad]:
    """A case for each of the two matchers, whose name replaces MATCHER in `field`."""
    return [
        Bad(
            f"{name}, {matcher}",
            changed(policy, {f"spec/frontend/{matcher}/toPorts": front, f"{BACK}/toPorts": back}),
            field.replace("MATCHER", matcher),
            says,
        )
        for matcher, policy in (("addressMatcher", address_policy()), ("serviceMatcher", service_policy()))
    ]


_IP = "spec.frontend.addressMatcher.ip"
_FRONT_PORTS = "spec.frontend.addressMatcher.toPorts"
_BACK_PORTS = "spec.backend.toPorts"
_SELECTOR = "spec.backend.endpointSelector"
_LIMIT = "spec.config.redirectQosLimit"
_SECONDS = "spec.config.sessionAffinityTimeoutSeconds"
_ANNOTATIONS = "balancing.elf.io/serviceId must be a whole number from 1 to 4294967295"
_ONE_HOST = "write the IPv4 or IPv6 address of one host"
_PORT_RANGE = "write a port number from 1 to 65535"
_SERVICE_NAME = "must be the name of a Service"
_NAMESPACE = "must be the name of a namespace"
_PORT_NAME = "must be up to 63 letters, digits, '-', '_' or '.'"
_LABEL_VALUE = "must be a label value"
_LABEL_KEY = "a key is not a label key"
_TWO_MATCHERS = "there are both serviceMatcher and addressMatcher: keep one"
_NO_VALUES = "operators In and NotIn need at least one value"
_EXPRESSION_KEY = "must be a label key"
_NO_BACKEND = "a frontend port has no backend port: write an entry of the same name and protocol"
_NO_FRONTEND = "a backend port has no frontend port: write an entry of the same name and protocol"
_DURATION = "must be a duration of 50ms to 5m, such as 500ms, 1s or 1m30s"
_DNS_NAME = "must be a DNS name of up to 253 letters"
_HTTP_PATH = "must be a path of ASCII characters without spaces"
_COST = "the API server wants to know what a rule may cost"
_BOTH_MATCHERS = {
    "addressMatcher": {"ip": "169.254.0.90", "toPorts": [{"port": 80}]},
    "serviceMatcher": {"serviceName": "s", "namespace": "n"},
}

BAD: list[Bad] = [
    _address("no spec", "spec", DELETE, "spec", "Required value"),
    _address("spec is a list", "spec", [], "spec", "must be of type object"),
    _address("no frontend", "spec/frontend", DELETE, "spec.frontend", "Required value"),
    _address("no backend", BACK, DELETE, "spec.backend", "Required value"),
    _address("enabled in quotes", "spec/enabled", "true", "spec.enabled", "must be of type boolean"),
    # matchers
    _address("no matcher", "spec/frontend", {}, "spec.frontend", "there is no matcher: write serviceMatcher"),
    _address("two matchers", "spec/frontend", _BOTH_MATCHERS, "spec.frontend", _TWO_MATCHERS),
    # Service matcher
    _service("no Service name", f"{SERVICE}/serviceName", DELETE, "serviceMatcher.serviceName", "Required value"),
    _service("empty Service name", f"{SERVICE}/serviceName", "", "serviceMatcher.serviceName", _SERVICE_NAME),
    _service(
        "Service name with namespace", f"{SERVICE}/serviceName", "n/s", "serviceMatcher.serviceName", "in the field"
    ),
    _service("Service name in capitals", f"{SERVICE}/serviceName", "DNS", "serviceMatcher.serviceName", _SERVICE_NAME),
    _service("Service name ends with -", f"{SERVICE}/serviceName", "s-", "serviceMatcher.serviceName", _SERVICE_NAME),
    _service("Service name with a dot", f"{SERVICE}/serviceName", "a.b", "serviceMatcher.serviceName", _SERVICE_NAME),
    _service("long Service name", f"{SERVICE}/serviceName", "s" * 64, "serviceMatcher.serviceName", "Too long"),
    _service("Service name is a number", f"{SERVICE}/serviceName", 7, "serviceMatcher.serviceName", "of type string"),
    _service("no namespace", f"{SERVICE}/namespace", DELETE, "serviceMatcher.namespace", "Required value"),
    _service("namespace with _", f"{SERVICE}/namespace", "kube_system", "serviceMatcher.namespace", _NAMESPACE),
    _service("long namespace", f"{SERVICE}/namespace", "n" * 64, "serviceMatcher.namespace", "Too long"),
    _service("Service port twice", f"{SERVICE}/toPorts", [port(1, "a"), port("1", "b")], "toPorts", "appears twice"),
    # address matcher
    _address("no ip", f"{FRONT}/ip", DELETE, _IP, "Required value"),
    _address("ip is a number", f"{FRONT}/ip", 1, _IP, "must be of type string"),
    _address("ip is a name", f"{FRONT}/ip", "dns.local", _IP, _ONE_HOST),
    _address("ip is empty", f"{FRONT}/ip", "", _IP, _ONE_HOST),
    _address("ip of three numbers", f"{FRONT}/ip", "10.0.0", _IP, _ONE_HOST),
    _address("ip with leading zeros", f"{FRONT}/ip", "10.0.0.01", _IP, _ONE_HOST),
    _address("ip with a space", f"{FRONT}/ip", " 10.0.0.1", _IP, _ONE_HOST),
    _address("ip with a prefix", f"{FRONT}/ip", "10.0.0.1/32", _IP, "without a prefix length (/24)"),
    _address("ip in brackets", f"{FRONT}/ip", "[fd00::1]", _IP, _ONE_HOST),
    _address("ip with a zone", f"{FRONT}/ip", "fe80::1%eth0", _IP, "without a zone (%eth0)"),
    _address("ip mapped", f"{FRONT}/ip", "::ffff:10.0.0.1", _IP, "10.0.0.1 for ::ffff:10.0.0.1"),
    _address("ip mapped, in hexadecimal", f"{FRONT}/ip", "::ffff:a00:1", _IP, _ONE_HOST),
    _address("ip unspecified", f"{FRONT}/ip", "0.0.0.0", _IP, "is the unspecified address"),
    _address("ip unspecified, IPv6", f"{FRONT}/ip", "::", _IP, "is the unspecified address"),
    _address("ip unspecified, IPv6, long", f"{FRONT}/ip", "0:0:0:0:0:0:0:0", _IP, "is the unspecified address"),
    _address("ip multicast", f"{FRONT}/ip", "224.0.0.251", _IP, "is a multicast or broadcast address"),
    _address("ip multicast, last", f"{FRONT}/ip", "239.255.255.255", _IP, "is a multicast or broadcast address"),
    _address("ip multicast, IPv6", f"{FRONT}/ip", "ff02::1", _IP, "is a multicast or broadcast address"),
    _address("ip broadcast", f"{FRONT}/ip", "255.255.255.255", _IP, "is a multicast or broadcast address"),
    *(
        _address(
            f"ip loopback, {ip}", f"{FRONT}/ip", ip, _IP, "is a loopback address, at which every Pod reaches itself"
        )
        for ip in (
            *("127.0.0.1", "127.0.0.53", "127.255.255.255", "::1", "0:0:0:0:0:0:0:1", "::0001", "0::0:1"),
            *("0000:0000:0000:0000:0000:0000:0000:0001", "::0.0.0.1"),
        )
    ),
    *(
        _address(f"ip link-local, {ip}", f"{FRONT}/ip", ip, _IP, "is a link-local IPv6 address")
        for ip in ("fe80::1", "FE80::A", "fe9f::", "feaa:1::2", "feBf:ffff::1")
    ),
    *(
        _address(f"ip mapped, {ip}", f"{FRONT}/ip", ip, _IP, _ONE_HOST)
        for ip in ("::ffff:127.0.0.1", "::FFFF:7f00:1", "0:0:0:0:0:ffff:0.0.0.0", "::ffff:224.0.0.1")
    ),
    _address("no frontend ports", f"{FRONT}/toPorts", DELETE, _FRONT_PORTS, "Required value"),
    _address("empty frontend ports", f"{FRONT}/toPorts", [], _FRONT_PORTS, "should have at least 1 items"),
    _address("frontend ports no list", f"{FRONT}/toPorts", {}, _FRONT_PORTS, "must be of type array"),
    _address("129 frontend ports", f"{FRONT}/toPorts", ports(129), _FRONT_PORTS, "must have at most 128 items"),
    # ports
    _address("no port", f"{FRONT}/toPorts", [{"protocol": "TCP"}], f"{_FRONT_PORTS}[0].port", "Required value"),
    _address("port 0", f"{FRONT}/toPorts", [port(0)], f"{_FRONT_PORTS}[0].port", _PORT_RANGE),
    _address("port negative", f"{FRONT}/toPorts", [port(-1)], f"{_FRONT_PORTS}[0].port", _PORT_RANGE),
    _address("port 65536", f"{FRONT}/toPorts", [port(65536)], f"{_FRONT_PORTS}[0].port", _PORT_RANGE),
    _address("port 65536 in quotes", f"{FRONT}/toPorts", [port("65536")], f"{_FRONT_PORTS}[0].port", _PORT_RANGE),
    _address("port a name", f"{FRONT}/toPorts", [port("http")], f"{_FRONT_PORTS}[0].port", _PORT_RANGE),
    _address("port empty", f"{FRONT}/toPorts", [port("")], f"{_FRONT_PORTS}[0].port", _PORT_RANGE),
    _address(
        "port with a sign", f"{FRONT}/toPorts", [port("+80")], f"{_FRONT_PORTS}[0].port", "should match '^[0-9]+$'"
    ),
    _address("port 8e1", f"{FRONT}/toPorts", [port("8e1")], f"{_FRONT_PORTS}[0].port", _PORT_RANGE),
    _address("port a fraction", f"{FRONT}/toPorts", [port(80.5)], f"{_FRONT_PORTS}[0].port", "must be of type"),
    _address("port true", f"{FRONT}/toPorts", [port(True)], f"{_FRONT_PORTS}[0].port", "must be of type"),
    _address("port long", f"{FRONT}/toPorts", [port("0" * 11 + "80")], f"{_FRONT_PORTS}[0].port", "Too long"),
    _address("backend port 0", f"{BACK}/toPorts", [port(0)], f"{_BACK_PORTS}[0].port", _PORT_RANGE),
    _service("Service port 0", f"{SERVICE}/toPorts", [port(0)], "serviceMatcher.toPorts[0].port", _PORT_RANGE),
    _address("protocol in lower case", f"{FRONT}/toPorts", [port(80, protocol="tcp")], "[0].protocol", '"TCP", "UDP"'),
    _address("protocol SCTP", f"{BACK}/toPorts", [port(80, protocol="SCTP")], "[0].protocol", '"TCP", "UDP"'),
    _address("protocol empty", f"{BACK}/toPorts", [port(80, protocol="")], "[0].protocol", '"TCP", "UDP"'),
    _address("port name with a space", f"{BACK}/toPorts", [port(80, "a b")], f"{_BACK_PORTS}[0].name", _PORT_NAME),
    _address("port name begins with -", f"{FRONT}/toPorts", [port(80, "-a")], f"{_FRONT_PORTS}[0].name", _PORT_NAME),
    _address("port name long", f"{FRONT}/toPorts", [port(80, "a" * 64)], f"{_FRONT_PORTS}[0].name", "Too long"),
    _service(
        "Service port's name", f"{SERVICE}/toPorts", [port(80, "é")], "serviceMatcher.toPorts[0].name", _PORT_NAME
    ),
    _address("a name missing", f"{FRONT}/toPorts", [port(1, "a"), port(2)], _FRONT_PORTS, "several ports needs a name"),
    _address("a name empty", f"{BACK}/toPorts", [port(1, "a"), port(2, "")], _BACK_PORTS, "several ports needs a name"),
    _service("names missing", f"{SERVICE}/toPorts", [port(1), port(2)], "toPorts", "several ports needs a name"),
    _address("a name twice", f"{FRONT}/toPorts", [port(1, "a"), port(2, "a")], _FRONT_PORTS, "a name appears twice"),
    _address("a backend name twice", f"{BACK}/toPorts", [port(1, "a"), port(2, "a")], _BACK_PORTS, "appears twice"),
    _service(
        "a Service port's name twice", f"{SERVICE}/toPorts", [port(1, "a"), port(2, "a")], "toPorts", "appears twice"
    ),
    _address("a port twice", f"{FRONT}/toPorts", [port(1, "a"), port(1, "b")], _FRONT_PORTS, "appears twice"),
    _address(
        "a port twice, quoted", f"{FRONT}/toPorts", [port(1, "a"), port("01", "b")], _FRONT_PORTS, "appears twice"
    ),
    # P3
    *_partners(
        "protocols differ", [port(80)], [port(80, protocol="UDP")], "spec.frontend.MATCHER.toPorts", _NO_BACKEND
    ),
    *_partners("protocols differ, other side", [port(80)], [port(80, protocol="UDP")], _BACK_PORTS, _NO_FRONTEND),
    *_partners(
        "frontend port without a partner",
        [port(1, "a"), port(2, "b")],
        [port(3, "a")],
        "spec.frontend.MATCHER.toPorts",
        _NO_BACKEND,
    ),
    *_partners(
        "backend port without a partner",
        [port(1, "a")],
        [port(2, "a"), port(3, "b")],
        _BACK_PORTS,
        _NO_FRONTEND,
    ),
    *_partners(
        "name of another protocol",
        [port(1, "a"), port(2, "b")],
        [port(3, "a"), port(4, "b", "UDP")],
        "spec.frontend.MATCHER.toPorts",
        _NO_BACKEND,
    ),
    *_partners("one without a name, two with", [port(1)], [port(2, "a"), port(3, "b")], _BACK_PORTS, _NO_FRONTEND),
    # backend
    _address("no selector", SELECTOR, DELETE, _SELECTOR, "Required value"),
    _address("selector empty", SELECTOR, {}, _SELECTOR, "is empty and would select every Pod: write matchLabels"),
    _address("labels empty", f"{SELECTOR}/matchLabels", {}, _SELECTOR, "is empty and would select every Pod"),
    _address(
        "labels and expressions empty", SELECTOR, {"matchLabels": {}, "matchExpressions": []}, _SELECTOR, "is empty and"
    ),
    _address("label is a number", f"{SELECTOR}/matchLabels", {"a": 1}, f"{_SELECTOR}.matchLabels.a", "of type string"),
    _address("label with a space", f"{SELECTOR}/matchLabels", {"a": "b c"}, f"{_SELECTOR}.matchLabels", _LABEL_VALUE),
    _address("label long", f"{SELECTOR}/matchLabels", {"a": "b" * 64}, f"{_SELECTOR}.matchLabels", "Too long"),
    _address("key with a space", f"{SELECTOR}/matchLabels", {"a b": "c"}, f"{_SELECTOR}.matchLabels", _LABEL_KEY),
    _address("key with two /", f"{SELECTOR}/matchLabels", {"a/b/c": "d"}, f"{_SELECTOR}.matchLabels", _LABEL_KEY),
    _address(
        "key's prefix in capitals", f"{SELECTOR}/matchLabels", {"A/b": "c"}, f"{_SELECTOR}.matchLabels", _LABEL_KEY
    ),
    _address("key's prefix empty", f"{SELECTOR}/matchLabels", {"/b": "c"}, f"{_SELECTOR}.matchLabels", _LABEL_KEY),
    _address(
        "key's prefix long", f"{SELECTOR}/matchLabels", {"a" * 254 + "/b": "c"}, f"{_SELECTOR}.matchLabels", _LABEL_KEY
    ),
    _address(
        "65 labels",
        f"{SELECTOR}/matchLabels",
        {f"k{index}": "v" for index in range(65)},
        f"{_SELECTOR}.matchLabels",
        "must have at most 64 items",
        _COST,
    ),
    _address("no key", EXPRESSIONS, [{"operator": "Exists"}], f"{_SELECTOR}.matchExpressions[0].key", "Required value"),
    _address("key wrong", EXPRESSIONS, expression("a_/b", "Exists"), "matchExpressions[0].key", _EXPRESSION_KEY),
    _address(
        "key's prefix long, expression",
        EXPRESSIONS,
        expression("a" * 254 + "/b", "Exists"),
        "matchExpressions[0].key",
        _EXPRESSION_KEY,
    ),
    _address("no operator", EXPRESSIONS, [{"key": "a"}], "matchExpressions[0].operator", "Required value"),
    _address("operator in lower case", EXPRESSIONS, expression("a", "in", ["b"]), "[0].operator", '"DoesNotExist"'),
    _address("In without values", EXPRESSIONS, expression("a", "In"), "matchExpressions[0]", _NO_VALUES),
    _address("NotIn, no value", EXPRESSIONS, expression("a", "NotIn", []), "matchExpressions[0]", _NO_VALUES),
    _address("Exists with values", EXPRESSIONS, expression("a", "Exists", ["b"]), "[0]", "take no values"),
    _address("DoesNotExist, a value", EXPRESSIONS, expression("a", "DoesNotExist", ["b"]), "[0]", "take no values"),
    _address("value with a /", EXPRESSIONS, expression("a", "In", ["b/c"]), "[0].values[0]", _LABEL_VALUE),
    _address("value is a number", EXPRESSIONS, expression("a", "In", [1]), "[0].values[0]", "must be of type string"),
    _address(
        "65 expressions",
        EXPRESSIONS,
        [each for index in range(65) for each in expression(f"k{index}", "Exists")],
        f"{_SELECTOR}.matchExpressions",
        "must have at most 64 items",
        _COST,
    ),
    _address(
        "65 values",
        EXPRESSIONS,
        expression("a", "In", [f"v{index}" for index in range(65)]),
        "matchExpressions[0].values",
        "must have at most 64 items",
        _COST,
    ),
    _address("no backend ports", f"{BACK}/toPorts", DELETE, _BACK_PORTS, "Required value"),
    _address("empty backend ports", f"{BACK}/toPorts", [], _BACK_PORTS, "should have at least 1 items"),
    _address("backend namespace", f"{BACK}/namespace", "A_B", "spec.backend.namespace", _NAMESPACE),
    _address("backend namespace, *", f"{BACK}/namespace", "*", "spec.backend.namespace", _NAMESPACE),
    _address("backend namespace, long", f"{BACK}/namespace", "n" * 64, "spec.backend.namespace", "Too long"),
    # health check
    _check("check is a list", [], "", "must be of type object"),
    _check("check of no kind", {}, "", "there is no kind of check: write one of dns, tcp and http"),
    _check("check of no kind, null", {"dns": None, "interval": "1s"}, "", "there is no kind of check"),
    _check("check of two kinds", {"tcp": {}, "http": {}}, "", "there are several kinds of check: keep one"),
    _check("check of three kinds", {"tcp": {}, "http": {}, "dns": {}, "port": 1}, "", "there are several kinds"),
    _check("check dns is a word", {"dns": "."}, ".dns", "must be of type object"),
    _check("check tcp is true", {"tcp": True}, ".tcp", "must be of type object"),
    *(
        _check(f"check asks for {name!r}", {"dns": {"name": name}, "port": 1}, ".dns.name", says)
        for name, says in {
            "a b": _DNS_NAME,
            "a..b": _DNS_NAME,
            ".a": _DNS_NAME,
            "..": _DNS_NAME,
            "-a": _DNS_NAME,
            "a" * 64: _DNS_NAME,
            "é": _DNS_NAME,
            "a." * 127: "Too long",
        }.items()
    ),
    _check("check asks for a number", {"dns": {"name": 1}, "port": 1}, ".dns.name", "must be of type string"),
    _check("check asks for ANY", {"dns": {"type": "ANY"}, "port": 1}, ".dns.type", '"NS", "PTR", "SOA"'),
    _check("check's path without /", {"http": {"path": "ready"}}, ".http.path", _HTTP_PATH),
    _check("check's path with a space", {"http": {"path": "/a b"}}, ".http.path", _HTTP_PATH),
    _check("check's path of two lines", {"http": {"path": "/\r\nA: b"}}, ".http.path", _HTTP_PATH),
    _check("check's path not ASCII", {"http": {"path": "/é"}}, ".http.path", _HTTP_PATH),
    _check("check's path long", {"http": {"path": "/" * 1025}}, ".http.path", "Too long"),
    _check("check's port 0", {"tcp": {}, "port": 0}, ".port", _PORT_RANGE),
    _check("check's port a name", {"tcp": {}, "port": "http"}, ".port", _PORT_RANGE),
    *(
        _check(f"check's {field} {value!r}", {"tcp": {}, field: value}, f".{field}", _DURATION)
        for field in ("interval", "timeout")
        for value in ("", "1", "1.5s", "-1s", "+1s", "1us", "1 s", "1S", "49ms", "0s", "5m1ms", "1h", "100000ms")
    ),
    _check("check's interval of five parts", {"tcp": {}, "interval": "1s1s1s1s1s"}, ".interval", _DURATION),
    _check("check's interval is a number", {"tcp": {}, "interval": 1}, ".interval", "must be of type string"),
    _check("check's timeout above 1s", {"tcp": {}, "timeout": "1001ms"}, ".timeout", "is longer than the interval"),
    _check(
        "check's timeout above the interval",
        {"tcp": {}, "interval": "50ms", "timeout": "51ms"},
        ".timeout",
        "is longer than the interval: write at most the interval",
    ),
    _check("check's failures 0", {"tcp": {}, "failureThreshold": 0}, ".failureThreshold", "greater than or equal to 1"),
    _check("check's failures 101", {"tcp": {}, "failureThreshold": 101}, ".failureThreshold", "less than or equal"),
    _check("check's failures in quotes", {"tcp": {}, "failureThreshold": "2"}, ".failureThreshold", "of type integer"),
    _check("check's successes 0", {"tcp": {}, "successThreshold": 0}, ".successThreshold", "greater than or equal"),
    _check("check's successes 101", {"tcp": {}, "successThreshold": 101}, ".successThreshold", "less than or equal"),
    _check("check without a UDP port", {"dns": {}}, ".port", "a dns check uses UDP, and toPorts has no port"),
    _check("tcp check without a TCP port", {"tcp": {}}, ".port", "tcp and http checks use TCP", protocol="UDP"),
    _check("http check without a TCP port", {"http": {}}, ".port", "write the port to check", protocol="UDP"),
    # config
    _address("limit negative", f"{CONFIG}/redirectQosLimit", -1, _LIMIT, "should be greater than or equal to 0"),
    _address("limit 2^32", f"{CONFIG}/redirectQosLimit", 2**32, _LIMIT, "should be less than or equal to 4294967295"),
    _address("limit in quotes", f"{CONFIG}/redirectQosLimit", "5", _LIMIT, "must be of type integer"),
    _address("limit a fraction", f"{CONFIG}/redirectQosLimit", 0.5, _LIMIT, "must be of type integer"),
    _address("host flag", f"{CONFIG}/redirectFromHost", 1, "spec.config.redirectFromHost", "of type boolean"),
    _address("mode in small letters", f"{CONFIG}/mode", "shadow", "spec.config.mode", '"Redirect", "Shadow"'),
    _address("percentage 0", f"{CONFIG}/percentage", 0, "spec.config.percentage", "greater than or equal to 1"),
    _address("percentage 101", f"{CONFIG}/percentage", 101, "spec.config.percentage", "less than or equal to 100"),
    _address("percentage in quotes", f"{CONFIG}/percentage", "10", "spec.config.percentage", "of type integer"),
    _address("backend flag", f"{CONFIG}/skipRedirectFromBackend", "no", "skipRedirectFromBackend", "of type boolean"),
    _address("compatibility flag", f"{CONFIG}/enableOutCluster", 3, "spec.config.enableOutCluster", "of type boolean"),
    _address("affinity", f"{CONFIG}/sessionAffinity", "Cookie", "spec.config.sessionAffinity", '"ClientIP", "None"'),
    _address("affinity's time 0", f"{CONFIG}/sessionAffinityTimeoutSeconds", 0, _SECONDS, "greater than or equal to 1"),
    _address(
        "affinity's time", f"{CONFIG}/sessionAffinityTimeoutSeconds", 86401, _SECONDS, "less than or equal to 86400"
    ),
    _address("node label", NODES, {"matchLabels": {"a": "b c"}}, "nodeLabelSelector.matchLabels", _LABEL_VALUE),
    _address("node label's key", NODES, {"matchLabels": {"a b": "c"}}, "nodeLabelSelector.matchLabels", _LABEL_KEY),
    _address(
        "node expression",
        NODES,
        {"matchExpressions": expression("a", "In")},
        "nodeLabelSelector.matchExpressions[0]",
        _NO_VALUES,
    ),
    # metadata; only the ValidatingAdmissionPolicy sees the faults in annotations
    _address("name in capitals", "metadata/name", "P", "metadata.name", "RFC 1123 subdomain"),
    _address("name long", "metadata/name", "p" * 254, "metadata.name", "must be no more than 253"),
    *(
        _address(f"serviceId {value!r}", "metadata/annotations", {ANNOTATION: value}, "", _ANNOTATIONS)
        for value in ("0", "4294967296", "-1", "x", "", "0x10", "1.5", " 7", "1" * 13)
    ),
]

_SEVERAL = [port(53, "dns", "UDP"), port("53", "dns", "TCP"), port(9153, "metrics")]
_ALL_CONFIG = {
    "nodeLabelSelector": {
        "matchLabels": {"kubernetes.io/arch": "amd64"},
        "matchExpressions": expression("node-role.kubernetes.io/control-plane", "DoesNotExist"),
    },
    "redirectQosLimit": 4294967295,
    "redirectFromHost": False,
    "mode": "Shadow",
    "percentage": 10,
    "skipRedirectFromBackend": False,
    "sessionAffinity": "ClientIP",
    "sessionAffinityTimeoutSeconds": 86400,
    "enableOutCluster": True,
}
_ALL_SELECTOR = {
    "matchLabels": {"app": "a", "app.kubernetes.io/name": "B_c.d-e", "empty": "", "x" * 63: "y" * 63},
    "matchExpressions": [
        *expression("tier", "In", ["cache", "edge", ""]),
        *expression("a" * 253 + "/" + "b" * 63, "NotIn", ["c"]),
        *expression("d", "Exists", []),
        *expression("e", "DoesNotExist"),
    ],
}

_OWNER = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}
METADATA: dict[str, Json] = {
    "labels": {"labels": {"a": "b", "example.com/c": "", "D_e.f": "0"}},
    "a label is a number": {"labels": {"a": 1}},
    "a label is a boolean": {"labels": {"a": True}},
    "a label is null": {"labels": {"a": None}},
    "a label is a list": {"labels": {"a": ["b"]}},
    "a label with a space": {"labels": {"a": "b c"}},
    "a label too long": {"labels": {"a": "b" * 64}},
    "a label's key with a space": {"labels": {"a b": "c"}},
    "a label's key with a prefix in capitals": {"labels": {"A.b/c": "d"}},
    "labels are a list": {"labels": ["a"]},
    "labels are null": {"labels": None},
    "annotations": {"annotations": {"a": "any text\n", "Example.com/C": ""}},
    "an annotation is a number": {"annotations": {"a": 1}},
    "an annotation is a fraction": {"annotations": {"a": 1.5}},
    "an annotation is a mapping": {"annotations": {"a": {"b": "c"}}},
    "an annotation's key with two /": {"annotations": {"a/b/c": "d"}},
    "an annotation's key empty": {"annotations": {"": "d"}},
    "annotations are a word": {"annotations": "a"},
    "annotations too large": {"annotations": {"a": "x" * (256 * 1024)}},
    "annotations as large as may be": {"annotations": {"a": "x" * (256 * 1024 - 1)}},
    "the annotation is a number": {"annotations": {ANNOTATION: 7}},
    "the name is a number": {"name": 7},
    "the name is a boolean": {"name": True},
    "the name is missing": {"name": None},
    "a namespace": {"namespace": "default"},
    "an invalid namespace": {"namespace": "A_B"},
    "a namespace that is a number": {"namespace": 7},
    "a uid": {"uid": "11111111-2222-3333-4444-555555555555"},
    "the uid is a number": {"uid": 7},
    "the generation in quotes": {"generation": "1"},
    "the generation a fraction": {"generation": 1.5},
    "a creation time": {"creationTimestamp": "2026-01-31T12:00:00Z"},
    "a creation time with an offset": {"creationTimestamp": "2026-01-31T12:00:00.5+01:00"},
    "a creation time without a time": {"creationTimestamp": "2026-01-31"},
    "a creation time without a zone": {"creationTimestamp": "2026-01-31T12:00:00"},
    "an invalid creation time": {"creationTimestamp": "2026-13-31T12:00:00Z"},
    "the creation time is a number": {"creationTimestamp": 7},
    "finalizers": {"finalizers": ["example.com/f"]},
    "finalizers are a word": {"finalizers": "example.com/f"},
    "a finalizer is a number": {"finalizers": [7]},
    "a finalizer with a space": {"finalizers": ["a b"]},
    "an owner": {"ownerReferences": [_OWNER]},
    "an owner without a uid": {"ownerReferences": [changed(_OWNER, {"uid": DELETE})]},
    "an owner whose name is a number": {"ownerReferences": [{**_OWNER, "name": 7}]},
    "an owner that is a word": {"ownerReferences": ["a"]},
    "owners that are a mapping": {"ownerReferences": _OWNER},
    "an unknown field": {"label": {"a": "b"}},
    "a misspelt field": {"Labels": {"a": "b"}},
}
"""Metadata, good or bad: the API server decides which, and `validate` must agree."""

GOOD: dict[str, Json] = {
    "least, address": address_policy(),
    "least, Service": changed(service_policy(), {f"{SERVICE}/toPorts": DELETE}),
    "every field": changed(
        address_policy(),
        {
            "metadata/annotations": {ANNOTATION: "4294967295"},
            "spec/enabled": False,
            f"{FRONT}/toPorts": _SEVERAL,
            f"{BACK}/toPorts": _SEVERAL,
            f"{BACK}/namespace": "n" * 63,
            SELECTOR: _ALL_SELECTOR,
            CONFIG: _ALL_CONFIG,
        },
    ),
    "every field, Service": changed(
        service_policy(), {f"{SERVICE}/toPorts": _SEVERAL, f"{BACK}/toPorts": _SEVERAL, CONFIG: _ALL_CONFIG}
    ),
    "as large as it may be": changed(
        address_policy(),
        {
            f"{FRONT}/toPorts": ports(128),
            f"{BACK}/toPorts": ports(128),
            f"{SELECTOR}/matchLabels": {f"example.com/{index:052}": "v" * 63 for index in range(64)},
            EXPRESSIONS: [
                each
                for index in range(64)
                for each in expression(f"k{index}", "In", [f"{number:063}" for number in range(64)])
            ],
        },
    ),
    "one port each, names differ": changed(
        address_policy(), {f"{FRONT}/toPorts": [port(80, "a")], f"{BACK}/toPorts": [port(1, "b")]}
    ),
    "one port each, a name empty": changed(
        service_policy(), {f"{SERVICE}/toPorts": [port(80, "")], f"{BACK}/toPorts": [port(1, "b")]}
    ),
    "one name for both protocols": changed(
        address_policy(),
        {
            f"{FRONT}/toPorts": [port(53, "dns"), port(53, "dns", "UDP")],
            f"{BACK}/toPorts": [port(53, "dns", "UDP"), port(53, "dns")],
        },
    ),
    "Service ports empty": changed(
        service_policy(), {f"{SERVICE}/toPorts": [], f"{BACK}/toPorts": [port(1, "a"), port(2, "b")]}
    ),
    "backend port twice": changed(
        address_policy(),
        {f"{FRONT}/toPorts": [port(1, "a"), port(2, "b")], f"{BACK}/toPorts": [port(3, "a"), port(3, "b")]},
    ),
    "port 65535 in quotes": changed(address_policy(), {f"{FRONT}/toPorts": [port("65535")]}),
    "port with leading zeros": changed(address_policy(), {f"{FRONT}/toPorts": [port("0080")]}),
    "check: dns": changed(
        address_policy(), {f"{FRONT}/toPorts": _SEVERAL, f"{BACK}/toPorts": _SEVERAL, CHECK: {"dns": {}}}
    ),
    "check: tcp": changed(address_policy(), {CHECK: {"tcp": {}}}),
    "check: http": changed(address_policy(), {CHECK: {"http": {}}}),
    "check: every field": changed(
        address_policy(),
        {
            CHECK: {
                "dns": {"name": "_a-B.example." + "c" * 63 + ".", "type": "SRV"},
                "port": "05353",
                "interval": "4m59s1000ms",
                "timeout": "00050ms",
                "failureThreshold": 100,
                "successThreshold": 100,
            }
        },
    ),
    "check: a port, whatever toPorts has": changed(address_policy(), {CHECK: {"dns": {"name": "."}, "port": 53}}),
    "check: least times": changed(address_policy(), {CHECK: {"tcp": {}, "interval": "50ms", "timeout": "50ms"}}),
    "check: most times": changed(address_policy(), {CHECK: {"tcp": {}, "interval": "5m", "timeout": "300s"}}),
    "check: only a short interval": changed(address_policy(), {CHECK: {"tcp": {}, "interval": "100ms"}}),
    "check: parts in any order": changed(address_policy(), {CHECK: {"tcp": {}, "interval": "1ms1s1m1s"}}),
    "check: a long name": changed(
        address_policy(), {CHECK: {"dns": {"name": f"{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 61}"}, "port": 53}}
    ),
    "check: names and paths that are empty": changed(
        address_policy(), {CHECK: {"http": {"path": ""}, "dns": None, "interval": None, "timeout": None}}
    ),
    "check: a path": changed(address_policy(), {CHECK: {"http": {"path": "/a?b=c&d=%20#~"}}}),
    "check: null": changed(address_policy(), {CHECK: None}),
    "nulls": changed(
        address_policy(),
        {CONFIG: None, "spec/enabled": None, f"{BACK}/namespace": None, f"{BACK}/toPorts": [{"port": 1, "name": None}]},
    ),
    "empty namespace and config": changed(address_policy(), {f"{BACK}/namespace": "", CONFIG: {}}),
    "empty node selector": changed(address_policy(), {NODES: {}}),
    "limit 0, affinity None": changed(
        address_policy(),
        {CONFIG: {"redirectQosLimit": 0, "sessionAffinity": "None", "sessionAffinityTimeoutSeconds": 1}},
    ),
    "IPv6": changed(address_policy(), {f"{FRONT}/ip": "fd00::10"}),
    "IPv6, long and in capitals": changed(address_policy(), {f"{FRONT}/ip": "FD00:0:0:0:0:0:0:10"}),
    "IPv6 with IPv4's notation": changed(address_policy(), {f"{FRONT}/ip": "64:ff9b::10.0.0.1"}),
    "link-local, IPv4": changed(address_policy(), {f"{FRONT}/ip": "169.254.169.254"}),
    "IPv6 that ends like loopback": changed(address_policy(), {f"{FRONT}/ip": "100::1"}),
    "IPv6 after loopback": changed(address_policy(), {f"{FRONT}/ip": "::2"}),
    "IPv6 with 127 in it": changed(address_policy(), {f"{FRONT}/ip": "64:ff9b::127.0.0.1"}),
    "IPv6 before link-local": changed(address_policy(), {f"{FRONT}/ip": "fe7f::1"}),
    "IPv6 after link-local": changed(address_policy(), {f"{FRONT}/ip": "fec0::1"}),
    "IPv6 that only contains fe80": changed(address_policy(), {f"{FRONT}/ip": "fd00::fe80:1"}),
    "IPv4 before and after loopback": changed(address_policy(), {f"{FRONT}/ip": "126.255.255.255"}),
    "serviceId": changed(address_policy(), {"metadata/annotations": {ANNOTATION: "1"}}),
    "serviceId with zeros": changed(address_policy(), {"metadata/annotations": {ANNOTATION: "000000000012"}}),
    "other annotations": changed(address_policy(), {"metadata/annotations": {"balancing.elf.io/other": "x"}}),
    "name with dots": changed(address_policy(), {"metadata/name": "a.b-c.d"}),
}
