"""Downloads from a server on this machine that behaves well or badly."""

import hashlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runner.dataset import download
from runner.dataset.download import Published, provide
from runner.errors import BadInput

CONTENT = bytes(range(256)) * 4096
MD5 = hashlib.md5(CONTENT).hexdigest()
JOB = (
    "import sys; from pathlib import Path; from runner.dataset.download import Published, provide\n"
    f"provide([Published('sub/file', sys.argv[1], {MD5!r})], Path(sys.argv[2]), download=True)"
)


class Handler(BaseHTTPRequestHandler):
    requests: list[str]
    stall: threading.Event

    def do_GET(self) -> None:
        self.requests.append(self.path)
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if self.path == "/stalled":
            self.wfile.write(CONTENT[:100_000])
            self.stall.wait(60)
        else:
            bodies = {"/short": CONTENT[:-1000], "/corrupt": CONTENT[::-1], "/missing": b"", "/good": CONTENT}
            self.wfile.write(bodies[self.path])

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    Handler.requests, Handler.stall = [], threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        Handler.stall.set()
        http.shutdown()


def test_fetches_what_is_missing(server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = Published("sub/file", f"{server}/good", MD5)
    provide([file], tmp_path / "new", download=True)
    assert (tmp_path / "new" / "sub" / "file").read_bytes() == CONTENT
    assert "downloading file" in capfd.readouterr().err
    provide([file], tmp_path / "new", download=True)
    provide([file], tmp_path / "new", download=False)
    assert Handler.requests == ["/good"]


def test_from_a_file_url(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(CONTENT)
    provide([Published("here", (tmp_path / "there").as_uri(), MD5)], tmp_path, download=True)
    assert (tmp_path / "here").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("short", f"{len(CONTENT) - 1000} of {len(CONTENT)} bytes arrived"),
        ("corrupt", f"instead of {MD5}"),
        ("missing", "HTTP Error 404"),
    ],
)
def test_a_bad_download_leaves_nothing(server: str, tmp_path: Path, what: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        provide([Published("file", f"{server}/{what}", MD5)], tmp_path, download=True)
    assert [path.name for path in tmp_path.iterdir()] == [".file.lock"]


def test_a_download_without_end_is_given_up(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_LIMIT", 500_000)
    with pytest.raises(BadInput, match="more than 500000 bytes"):
        provide([Published("file", f"{server}/good", MD5)], tmp_path, download=True)
    assert not (tmp_path / "file").exists()


def test_without_a_network_all_missing_files_are_named(tmp_path: Path) -> None:
    """Which files, where, and how to get them."""
    there = Published("there", "http://127.0.0.1:9/there", MD5)
    (tmp_path / "there").touch()
    files = [there, *(Published(f"sub/{name}", f"http://127.0.0.1:9/{name}", MD5) for name in ("one", "two"))]
    for allowed, reason in ((True, "could not be fetched"), (False, "dataset.download is false")):
        with pytest.raises(BadInput, match=reason) as caught:
            provide(files, tmp_path, download=allowed)
        message = str(caught.value)
        assert "data_root" in message
        for name in ("one", "two"):
            command = f"curl --create-dirs -o {tmp_path}/sub/{name} http://127.0.0.1:9/{name}  # md5 {MD5}"
            assert command in message
        assert "there" not in message.replace("where there", "")


def test_several_jobs_at_once(server: str, tmp_path: Path) -> None:
    """One fetches, the others wait and find it done."""
    command = [sys.executable, "-c", JOB, f"{server}/good", str(tmp_path)]
    jobs = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(4)]
    assert [job.wait(timeout=60) for job in jobs] == [0] * 4
    assert (tmp_path / "sub" / "file").read_bytes() == CONTENT
    assert Handler.requests == ["/good"]


def test_a_killed_job_harms_nobody(server: str, tmp_path: Path) -> None:
    job = subprocess.Popen([sys.executable, "-c", JOB, f"{server}/stalled", str(tmp_path)], stderr=subprocess.PIPE)
    assert job.stderr is not None
    job.stderr.readline()  # "downloading …": it holds the lock
    job.send_signal(signal.SIGKILL)
    job.communicate()
    assert not (tmp_path / "sub" / "file").exists()
    provide([Published("sub/file", f"{server}/good", MD5)], tmp_path, download=True)
    assert (tmp_path / "sub" / "file").read_bytes() == CONTENT
