"""Pickles as they are published, and pickles that try to do something."""

import builtins
import codecs
import collections
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_data import write_python2_pickle

from runner.dataset.unpickle import load
from runner.errors import BadInput

CONTENT = {
    "data": np.arange(24, dtype=np.uint8).reshape(4, 6),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big endian": np.arange(5, dtype=">i4"),
    "one": np.ones((), dtype=bool),
    "labels": [1, 2, 300, -4, 2**40],
    "nested": {"a": (1.5, None, True), "b": [b"bytes", "täxt"]},
}


def same(found: Any, expected: Any) -> None:
    if isinstance(expected, np.ndarray):
        assert type(found) is np.ndarray
        assert np.array_equal(found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_arrays_lists_strings_and_numbers(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(pickle.dumps(CONTENT, protocol))
    content = load(path)
    assert content.keys() == CONTENT.keys()
    for key, value in CONTENT.items():
        same(content[key], value)


def test_reads_numpy_numbers(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(pickle.dumps({"labels": [np.int64(3), np.float32(0.5)]}))
    assert load(path) == {"labels": [3, 0.5]}


def test_reads_what_python_2_wrote(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_python2_pickle(path, {b"data": CONTENT["data"], b"labels": [1, 2], b"filenames": [b"a.png"]})
    content = load(path)
    same(content["data"], CONTENT["data"])
    assert content["labels"] == [1, 2]
    assert content["filenames"] == [b"a.png"]


class Calls:
    """Pickled as the call of a function."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self.call


class Harmless:
    pass


OBJECTS = np.array([{}, None], dtype=object)


@pytest.mark.parametrize(
    "content",
    [
        Calls(os.system, "touch marker"),
        Calls(eval, "open('marker', 'w')"),
        Calls(exec, "open('marker', 'w')"),
        Calls(subprocess.Popen, ["touch", "marker"]),
        Calls(open, "marker", "w"),
        Calls(getattr, [], "append"),
        Calls(builtins.__import__, "antigravity"),
        Calls(np.load, "marker"),
        Calls(np.save, "marker", 1),
        Calls(np.memmap, "marker", "u1", "w+", 0, (1,)),
        Calls(np.fromfile, "marker"),
        Calls(codecs.encode, "text", "rot13"),
        Calls(codecs.decode, b"text", "zlib"),
        collections.OrderedDict(a=1),
        Harmless(),
        {1, 2}.__class__,
        np.sum,
        OBJECTS,
        np.zeros(2, dtype=[("a", "u1"), ("b", "O")]),
        np.array(["a", "b"]),
        np.zeros(2, dtype="datetime64[s]"),
        np.ma.masked_array([1, 2]),
    ],
    ids=lambda value: f"{getattr(value, 'call', [value])[0]!r}"[:40],
)
@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_refuses_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    path.write_bytes(pickle.dumps({"data": content, "labels": [0]}, protocol))
    with pytest.raises(BadInput, match=r"is refused: it (names|holds|asks)"):
        load(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]  # and no marker


ARRAY = b"cnumpy\nndarray\n"
DTYPE = b"cnumpy\ndtype\n"
HAND_WRITTEN = {
    "system": b"cos\nsystem\n(S'true'\ntR.",
    "inst": b"(S'true'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'true'\no.",
    "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0cf2py.os.path\x93.",
    "attribute of what is admitted": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
    "extension": b"\x82\x01.",
    "persistent": b"Pabc\n.",
    "state of a class": ARRAY + b"}S'x'\nI1\nsb.",
    "attributes of a function": b"c_codecs\nencode\n(N}S'__new__'\n" + DTYPE + b"stb.",
    "attributes of an instance": ARRAY + b"(tR}S'array'\nI1\nsb.",
    "array never filled": b"}S'data'\n" + ARRAY + b"(tRs.",
    "array of a name": b"}S'data'\n" + ARRAY + b"(tR(I1\n(I1\nt" + DTYPE + b"(S'O8'\nI0\nI1\ntRI00\nS'xxxxxxxx'\ntbs.",
    "too little data": b"}S'data'\n" + ARRAY + b"(tR(I1\n(I9\nt" + DTYPE + b"(S'u1'\nI0\nI1\ntRI00\nS'x'\ntbs.",
    "a huge array": b"}S'data'\n" + ARRAY + b"((I99999999999\nttRs.",
    "all memory, for a number": b"}r\xff\xff\xff\x7f.",
    "all memory, for a number in digits": b"}p2000000000\n.",
    "all memory, for an array of bytes": b"\x80\x05\x96\x00\x00\x00\x00\x10\x00\x00\x00.",
    "no dict": b"(lI1\na.",
    "cut": b"}S'data'\n(lI1\na",
    "empty": b"",
    "text": b"hello",
    "a long string that is not there": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\x00\x00.",
}


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_refuses_hand_written_tricks(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(HAND_WRITTEN[name])
    with pytest.raises(BadInput, match="is refused"):
        load(path)
    path.write_bytes(pickle.dumps(CONTENT, 2))
    same(load(path)["data"], CONTENT["data"])  # nothing stuck
