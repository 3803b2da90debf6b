"""Archives that hold what they should, and archives made to do harm."""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.data import archives
from assay.runs.errors import ExitCode, JobError

FILES = {"set/a.txt": b"first" * 100, "set/b.txt": b"", "set/deep/c.bin": bytes(range(256))}
LIMIT = 10**6


def tarred(*members: tarfile.TarInfo, content: bytes = b"x") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        folder = tarfile.TarInfo("set")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zipped(files: dict[str, bytes] = FILES) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("set")
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo("set/link")
    member.type, member.linkname = kind, target
    return member


FORMS = {"tar": tar, "tar.gz": lambda: gzip.compress(tar()),
         "tar.xz": lambda: lzma.compress(tar()), "zip": zipped}  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "archive"
        path.write_bytes(content)
        return path

    return write


def refused(path: Path, wanted: object = re.compile(".*"), limit: int = LIMIT) -> str:
    with pytest.raises(JobError) as caught:
        list(archives.members(path, wanted, limit))
    assert caught.value.code == ExitCode.DATA
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", FORMS)
def test_wanted_files_are_read_by_name(form: str, write: Callable) -> None:
    path = write(FORMS[form]())
    wanted = ["set/deep/c.bin", "set/b.txt"]
    assert dict(archives.members(path, wanted, LIMIT)) == {name: FILES[name] for name in wanted}


@pytest.mark.parametrize("form", FORMS)
def test_wanted_files_are_read_by_a_pattern(form: str, write: Callable) -> None:
    path = write(FORMS[form]())
    found = dict(archives.members(path, re.compile(r"set/.\.txt"), LIMIT))
    assert found == {name: FILES[name] for name in ("set/a.txt", "set/b.txt")}


@pytest.mark.parametrize("form", FORMS)
def test_a_name_that_is_not_there_is_told(form: str, write: Callable) -> None:
    assert "holds no set/d.txt" in refused(write(FORMS[form]()), ["set/a.txt", "set/d.txt"])


def test_a_dot_before_a_name_makes_no_other_name(write: Callable) -> None:
    path = write(tarred(tarfile.TarInfo("./set/a.txt")))
    assert dict(archives.members(path, ["set/a.txt"], LIMIT)) == {"set/a.txt": b"x"}


OUTSIDE = ("../a", "set/../../a", "/etc/a", "..", "C:\\a", "..\\a", "\\\\host\\share\\a")


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_archive_that_climbs_out_of_its_folder_is_refused(name: str, write: Callable) -> None:
    assert "leads out" in refused(write(tarred(tarfile.TarInfo(name))))
    assert "leads out" in refused(write(zipped({name: b"x"})))


def test_it_is_refused_even_where_the_member_is_not_wanted(write: Callable) -> None:
    good, bad = tarfile.TarInfo("a"), tarfile.TarInfo("../b")
    assert "leads out" in refused(write(tarred(bad, good)), ["a"])


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
)
def test_links_and_devices_are_refused(kind: bytes, write: Callable) -> None:
    text = refused(write(tarred(link(kind, "/etc/passwd"))))
    assert "neither a file nor a folder" in text and "set/link" in text


def test_a_link_in_a_zip_is_refused(write: Callable) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        member = zipfile.ZipInfo("link")
        member.create_system, member.external_attr = 3, 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    assert "neither a file nor a folder" in refused(write(stream.getvalue()))


def test_two_members_of_one_name_are_refused(write: Callable) -> None:
    twice = tarred(tarfile.TarInfo("a"), tarfile.TarInfo("./a"))
    assert "two members have one name" in refused(write(twice))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
@pytest.mark.parametrize("wanted", [["a"], ["b"]])
def test_a_tar_that_unpacks_to_more_than_was_said_is_refused(
    pack: Callable, wanted: list[str], write: Callable
) -> None:
    path = write(pack(tarred(tarfile.TarInfo("a"), content=bytes(50 * LIMIT))))
    assert path.stat().st_size < LIMIT / 10
    assert "unpacks to more than" in refused(path, wanted)


def test_a_zip_that_unpacks_to_more_than_was_said_is_refused(write: Callable) -> None:
    path = write(zipped({"a": bytes(LIMIT - 1), "b": bytes(2)}))
    assert path.stat().st_size < LIMIT / 10
    assert "unpacks to more than" in refused(path)


def test_a_zip_that_lies_about_its_sizes_is_refused(write: Callable) -> None:
    content = bytes(50 * LIMIT)
    true, lie = (size.to_bytes(4, "little") for size in (len(content), 10))
    packed = zipped({"a": content})
    assert packed.count(true) == 2  # in the member's header and in the directory
    assert "damaged" in refused(write(packed.replace(true, lie)))


def test_a_header_longer_than_the_limit_is_refused(write: Callable) -> None:
    member = tarfile.TarInfo("a")
    member.pax_headers = {"comment": "x" * 2 * LIMIT}
    assert "unpacks to more than" in refused(write(gzip.compress(tarred(member))))


def test_a_sparse_file_is_refused(write: Callable) -> None:
    member = tarfile.TarInfo("a")
    member.pax_headers = {"GNU.sparse.size": str(10**15), "GNU.sparse.map": "0,0",
                          "GNU.sparse.name": "a"}  # fmt: skip
    assert "neither a file nor a folder" in refused(write(tarred(member, content=b"")))


def test_an_encrypted_member_is_refused(write: Callable) -> None:
    packed = bytearray(zipped({"a": b"x"}))
    start = packed.index(b"PK\x03\x04", packed.index(b"PK\x03\x04") + 4)
    packed[start + 6] |= 1
    start = packed.index(b"PK\x01\x02", packed.index(b"PK\x01\x02") + 4)
    packed[start + 8] |= 1
    assert "encrypted" in refused(write(bytes(packed)), ["a"])


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK no archive", bz2.compress(b"x")])
def test_what_is_no_archive_is_told(content: bytes, write: Callable) -> None:
    refused(write(content), ["a"])


@pytest.mark.parametrize("form", FORMS)
def test_an_archive_that_is_cut_off_is_told(form: str, write: Callable) -> None:
    whole = FORMS[form]()
    for length in range(0, len(whole.rstrip(b"\0")) // 2, 97):
        refused(write(whole[:length]), FILES)


@settings(max_examples=150, deadline=None, suppress_health_check=[*HealthCheck])
@given(data=st.data())
@pytest.mark.parametrize("form", FORMS)
def test_damage_of_any_kind_is_told_in_one_line(form: str, write: Callable, data) -> None:
    content = bytearray(FORMS[form]())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    try:
        found = list(archives.members(write(bytes(content)), re.compile(".*"), LIMIT))
    except JobError as error:
        assert "\n" not in str(error)
    else:
        assert sum(len(content) for _, content in found) <= LIMIT


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_a_file_is_unpacked_by_what_it_is(pack: Callable, write: Callable) -> None:
    assert archives.contents(write(pack(b"content")), 7) == b"content"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_a_file_that_is_longer_than_was_said_is_refused(pack: Callable, write: Callable) -> None:
    path = write(pack(bytes(20 * LIMIT)))
    with pytest.raises(JobError, match="unpacks to more than the 1000000 bytes"):
        archives.contents(path, LIMIT)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_packed_file_that_is_cut_off_is_told(pack: Callable, write: Callable) -> None:
    packed = pack(bytes(range(256)) * 9)
    for length in range(6, len(packed) - 1, 3):
        with pytest.raises(JobError, match="damaged"):
            archives.contents(write(packed[:length]), LIMIT)
