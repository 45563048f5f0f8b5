# SPDX-License-Identifier: Apache-2.0
"""The objects that the cases make."""

import json

from cluster import PROBE, TOOLS, apply, kubectl, ready
from tap import until

SHOP = "shop"
SERVICE = "10.196.10.10"  # of shop/server, port 80
SERVER_NAME = "server.shop.svc.cluster.local"

_SERVER = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: server
          image: {image}
          command: [/usr/bin/sidetrack-probe, serve, --port=8080, --port=8500]
          readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 2}}
          securityContext: {{runAsUser: 65532, runAsNonRoot: true}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  clusterIP: {service}
  selector: {{app: {name}}}
  ports:
    - {{name: http, port: 80, targetPort: 8080}}
    - {{name: excluded, port: 8500, targetPort: 8500}}
"""

_POD = """
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  labels: {labels}
  annotations: {annotations}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: {restart}
  hostNetwork: {host_network}
  runtimeClassName: {runtime_class}
  containers:
    - name: main
      image: {image}
      command: {command}
      {more}
"""


def namespace(name: str, mode: str = "") -> None:
    labels = f"{{sidetrack.io/mode: {mode}}}" if mode else "{}"
    apply(f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}}}\n")
    until(20, "its service account", lambda: kubectl("get", "serviceaccount", "-n", name, "default", check=False))


def server(in_namespace: str, name: str, service: str, replicas: int = 1) -> None:
    apply(_SERVER.format(namespace=in_namespace, name=name, service=service, replicas=replicas, image=PROBE))


def pod(in_namespace: str, name: str, command: list[str], *, labels: str = "{}", annotations: str = "{}", restart: str = "Always",
        host_network: bool = False, runtime_class: str = "null", more: str = "") -> str:
    """The manifest of a pod with the tools image; `more` belongs to its container."""
    return _POD.format(namespace=in_namespace, name=name, command=json.dumps(command), labels=labels,
                       annotations=annotations, restart=restart, host_network=str(host_network).lower(), runtime_class=runtime_class,
                       image=TOOLS, more=more)


IDLE = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"]


def static_pod(in_namespace: str, name: str) -> str:
    """For kubelet's folder: it makes the pod itself, the API server only gets to know it."""
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": in_namespace}, "spec": {
        "terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": TOOLS, "command": IDLE}]}})


def client(in_namespace: str, name: str = "client", **options: str) -> str:
    """A running pod that commands can be run in: NAMESPACE/NAME."""
    apply(pod(in_namespace, name, IDLE, **options))
    ready(in_namespace, f"pod/{name}")
    return f"{in_namespace}/{name}"


def traffic(in_namespace: str, name: str, to: str, *, workers: int = 4, pause_ms: int = 20, held: int = 4,
            held_requests: int = 0, labels: str = "{}") -> str:
    """A pod that asks `to` (ADDRESS PORT) without end: programs/traffic.c."""
    apply(pod(in_namespace, name, ["/bin/traffic", *to.split(), *map(str, (workers, pause_ms, held, held_requests))],
              labels=labels))
    ready(in_namespace, f"pod/{name}")
    until(20, "its first report", lambda: kubectl("logs", "-n", in_namespace, name, "--tail=1"))
    return f"{in_namespace}/{name}"
