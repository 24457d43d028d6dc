"""A stand-in for the API of Kubernetes: it runs the container of each job as a process in an empty folder.

It knows what Snakemake's plugin asks for: secrets, jobs, and the state, the log and the end of their pods. It pulls no
image, mounts nothing and isolates nothing: a volume is a folder that has the same path inside and outside.
"""

import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse


class Pod:
    """The only pod of a job: a process in a folder of its own."""

    def __init__(self, body: dict[str, Any], folder: Path, environment: dict[str, str]):
        (self.container,) = body["spec"]["template"]["spec"]["containers"]
        self.folder = folder
        folder.mkdir()
        with open(folder.with_suffix(".log"), "wb") as log:
            self.process = subprocess.Popen(
                [*self.container["command"], *self.container["args"]],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """Everything that the container said."""
        return self.folder.with_suffix(".log").read_text(errors="replace")

    def status(self) -> dict[str, int]:
        """Status of the job: one pod is active, has succeeded or has failed."""
        code = self.process.poll()
        return {"active" if code is None else "failed" if code else "succeeded": 1}

    def state(self) -> dict[str, Any]:
        """State of the container."""
        code = self.process.poll()
        return {"running": {}} if code is None else {"terminated": {"exitCode": code}}


class StandIn(ThreadingHTTPServer):
    """The API on a free port. ``environment`` is that of the containers."""

    daemon_threads = True

    def __init__(self, folder: Path, environment: dict[str, str]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.environment = folder, environment
        self.pods: dict[str, Pod] = {}
        """Every job that was asked for, by name; deleted ones too."""
        self.secrets: list[str] = []
        self.kept = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    def __enter__(self) -> "StandIn":
        self.folder.mkdir()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        for pod in self.pods.values():
            pod.process.kill()
            pod.process.wait()

    def configuration(self) -> Path:
        """A file for ``KUBECONFIG`` that leads here."""
        cluster = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.server_address[1]}"}}
        context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "users": [{"name": "me", "user": {}}],
        }
        path = self.folder / "kubeconfig.json"
        path.write_text(json.dumps({**content, "clusters": [cluster], "contexts": [context]}))
        return path


class Handler(BaseHTTPRequestHandler):
    """One request of the plugin."""

    server: StandIn

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Create a secret or a job."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = body["metadata"]["name"]
        with self.server.kept:
            if self.path.endswith("/secrets"):
                self.server.secrets.append(name)
            else:
                self.server.pods[name] = Pod(body, self.server.folder / name, self.server.environment)
        self._answer(body, 201)

    def do_DELETE(self) -> None:
        """Delete a secret, a job or its pod, which ends a container that still runs."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind, name = urlparse(self.path).path.split("/")[-2:]
        if kind == "secrets":
            self.server.secrets.remove(name)
        elif name in self.server.pods:
            self.server.pods[name].process.terminate()
        self._answer({"kind": "Status", "status": "Success"})

    def do_GET(self) -> None:
        """Tell the status of a job, its pod, or the pod's log."""
        asked = urlparse(self.path)
        if found := re.search(r"/jobs/([^/]+)/status$", asked.path):
            self._answer({"metadata": {"name": found[1]}, "status": self.server.pods[found[1]].status()})
        elif found := re.search(r"/pods/([^/]+)/log$", asked.path):
            self._answer(self.server.pods[found[1]].log)
        elif asked.path.endswith("/pods"):
            name = parse_qs(asked.query)["labelSelector"][0].removeprefix("job-name=")
            container = {"name": "snakemake", "state": self.server.pods[name].state()}
            missing = {"image": "none", "imageID": "none", "ready": True, "restartCount": 0}
            status = {"containerStatuses": [{**missing, **container}]}
            self._answer({"items": [{"metadata": {"name": name}, "status": status}]})
        else:
            self._answer({"kind": "Status", "status": "Failure", "message": self.path}, 404)

    def _answer(self, content: Any, code: int = 200) -> None:
        said = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
