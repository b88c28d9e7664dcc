import subprocess
import sys
from pathlib import Path

import pytest

from runner.dataset.files import alone, check_md5, replacing, writable
from runner.errors import BadInput

EMPTY = "d41d8cd98f00b204e9800998ecf8427e"


def test_md5(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    check_md5(path, EMPTY)
    path.write_bytes(b"other")
    with pytest.raises(BadInput, match=f"795f3202b17cb6bc3d4b771d8c6c9eaf.*{EMPTY}.*dataset.verify=false"):
        check_md5(path, EMPTY)


def test_replacing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "file"

    def fail() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with replacing(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]


def test_replacing_a_folder_that_another_job_made_meanwhile(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with replacing(target) as temporary:
        temporary.mkdir()
        target.mkdir()
        (target / "theirs").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (target / "theirs").exists()


def test_one_job_at_a_time(tmp_path: Path) -> None:
    """Each job reads a number, waits, and writes the next one: together they would lose some."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    job = (
        "import sys, time; from pathlib import Path; from runner.dataset.files import alone\n"
        "path = Path(sys.argv[1])\n"
        "with alone(path):\n"
        "    n = int(path.read_text()); time.sleep(0.1); path.write_text(str(n + 1))"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", job, str(counter)], stderr=subprocess.DEVNULL) for _ in range(4)]
    assert [one.wait(timeout=60) for one in jobs] == [0] * 4
    assert counter.read_text() == "4"


def test_a_folder_without_write_permission_is_left_alone(tmp_path: Path) -> None:
    """Also by root, whom the system would let in."""
    assert writable(tmp_path)
    assert not writable(tmp_path / "missing")
    tmp_path.chmod(0o555)
    try:
        assert not writable(tmp_path)
        with pytest.raises(PermissionError, match="cannot be written to"), alone(tmp_path / "new" / "file"):
            pass
        assert list(tmp_path.iterdir()) == []
    finally:
        tmp_path.chmod(0o755)
