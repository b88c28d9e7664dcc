import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from runner.dataset.cache import Tensors, cached
from runner.errors import BadInput

CONTENT = {"images": torch.arange(40_000).to(torch.uint8).view(10, 4000), "labels": torch.arange(10)}


class Build:
    """Counts how often it is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Tensors:
        self.calls += 1
        return CONTENT


def check(content: Tensors) -> None:
    assert content.keys() == CONTENT.keys()
    assert all(torch.equal(content[key], value) for key, value in CONTENT.items())


@pytest.fixture
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user" / "runner"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def test_built_once_below_the_root(root: Path, user_cache: Path) -> None:
    build = Build()
    for _ in range(3):
        check(cached("name", root, "f", build))
    assert build.calls == 1
    assert (root / "name.cache.pt").exists()
    assert not user_cache.exists()


def test_built_anew_for_another_fingerprint(root: Path, user_cache: Path) -> None:
    build = Build()
    for fingerprint, calls in (("f", 1), ("g", 2), ("g", 2), ("f", 3)):
        check(cached("name", root, fingerprint, build))
        assert build.calls == calls


def flip_a_byte(data: bytes) -> bytes:
    at = data.index(bytes(range(100, 200)))  # in the images
    return data[:at] + b"\x00" + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "last byte missing": lambda data: data[:-1],
    "empty": lambda data: b"",
    "another file": lambda data: b"hello",
    "zeros": lambda data: bytes(len(data)),
    "zeros inside": lambda data: data[:10_000] + bytes(4096) + data[14_096:],
    "one byte": flip_a_byte,
    "a shape": lambda data: data.replace(b"K\nM\xa0\x0f\x86", b"K\x05M\xa0\x0f\x86"),  # (10, 4000) -> (5, 4000)
    "a name": lambda data: data.replace(b"labels", b"lapels"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_built_anew_when_damaged(root: Path, user_cache: Path, damage: str) -> None:
    cached("name", root, "f", Build())
    path = root / "name.cache.pt"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    build = Build()
    check(cached("name", root, "f", build))
    assert build.calls == 1
    check(cached("name", root, "f", build))
    assert build.calls == 1


def test_refuses_code(root: Path, user_cache: Path) -> None:
    """A cache is read as weights are: nothing in it is executed."""
    torch.save({"fingerprint": "f", "tensors": {"x": Build()}, "sums": {}}, root / "name.cache.pt")
    build = Build()
    check(cached("name", root, "f", build))
    assert build.calls == 1


def test_in_the_users_folder_where_the_root_is_read_only(root: Path, user_cache: Path, tmp_path: Path) -> None:
    build, other = Build(), tmp_path / "other"
    other.mkdir(mode=0o555)
    root.chmod(0o555)
    try:
        for _ in range(2):
            check(cached("name", root, "f", build))
        assert build.calls == 1
        check(cached("name", other, "g", build))  # the same set from elsewhere has a place of its own
        check(cached("name", root, "f", build))
        assert build.calls == 2
        assert list(root.iterdir()) == []
        assert len(list(user_cache.glob("name-*.cache.pt"))) == 2
    finally:
        root.chmod(0o755)
        other.chmod(0o755)


def test_one_below_a_read_only_root_is_used(root: Path, user_cache: Path) -> None:
    build = Build()
    cached("name", root, "f", build)
    root.chmod(0o555)
    try:
        check(cached("name", root, "f", build))
        assert build.calls == 1
    finally:
        root.chmod(0o755)


def test_nowhere_to_write(root: Path, user_cache: Path) -> None:
    user_cache.parent.mkdir(mode=0o555)
    root.chmod(0o555)
    try:
        with pytest.raises(BadInput, match=r"XDG_CACHE_HOME"):
            cached("name", root, "f", Build())
    finally:
        root.chmod(0o755)
        user_cache.parent.chmod(0o755)


def test_a_failed_build_leaves_nothing(root: Path, user_cache: Path) -> None:
    def fail() -> Tensors:
        raise BadInput("no JPEG")

    with pytest.raises(BadInput, match=r"^no JPEG$"):
        cached("name", root, "f", fail)
    assert [path.name for path in root.iterdir()] == [".name.cache.pt.lock"]


def test_several_jobs_at_once(root: Path, user_cache: Path) -> None:
    """One builds, the other waits for it."""
    job = (
        "import sys, time; from pathlib import Path; import torch; from runner.dataset.cache import cached\n"
        "def build():\n"
        "    print('built'); time.sleep(1)\n"
        "    return {'x': torch.arange(1000)}\n"
        "assert torch.equal(cached('name', Path(sys.argv[1]), 'f', build)['x'], torch.arange(1000))"
    )
    command = [sys.executable, "-c", job, str(root)]
    jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(2)]
    outputs = [one.communicate(timeout=120)[0] for one in jobs]
    assert [one.returncode for one in jobs] == [0] * 2
    assert b"".join(outputs) == b"built\n"
