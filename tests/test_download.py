"""Downloads from a server on this machine that cuts connections on request; no network."""

import contextlib
import fcntl
import functools
import hashlib
import http.server
import json
import os
import threading

import pytest

from astroclip_nb import download
from astroclip_nb.download import Published
from astroclip_nb.errors import InputError

CONTENT = bytes(range(256)) * 4000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file with ETag and ranges, stopping after ``server.cut`` bytes of an answer."""

    def do_GET(self):
        server = self.server
        server.asked.append(dict(self.headers))
        if self.path != "/file.bin":
            self.send_error(403)
            return
        begin = 0
        if "Range" in self.headers and self.headers["If-Range"] == server.etag:
            begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if begin and begin >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(server.content) - begin))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # of a client that found the file taken
            self.wfile.write(server.content[begin:][: server.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.etag, server.cut, server.asked = CONTENT, '"one"', None, []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    files = {"file.bin": f"{address}/file.bin"}
    digest = hashlib.sha256(CONTENT).hexdigest()
    published = {
        "data": Published("x", files),
        "weights": Published("x", files, sha256=digest[:8]),
        "other": Published("x", files, sha256="00000000"),
        "closed": Published("x", {"a": f"{address}/closed"}, hint="ask its authors"),
        "elsewhere": Published("x", hint="only by post"),
    }
    monkeypatch.setattr(download, "PUBLISHED", published)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetch(tmp_path):
    return functools.partial(download.fetch, folder=tmp_path, progress=False)


def test_whole_download_and_its_hash(server, fetch, tmp_path):
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert fetch("data") == {tmp_path / "file.bin": digest}
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert json.loads((tmp_path / "hashes.json").read_text()) == {"file.bin": digest}
    assert sorted(os.listdir(tmp_path)) == ["file.bin", "hashes.json"]
    fetch("weights")
    assert len(server.asked) == 1  # what is at hand is not fetched again


def test_cut_download_goes_on(server, fetch, tmp_path):
    server.cut = 300_000
    with pytest.raises(InputError, match="file.bin: stopped after 262144 bytes .* the same command goes on"):
        fetch("data")
    assert not (tmp_path / "file.bin").exists() and not (tmp_path / "hashes.json").exists()
    with pytest.raises(InputError, match="stopped after 524288 bytes"):
        fetch("data")
    server.cut = None
    fetch("data")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert [asked.get("Range") for asked in server.asked] == [None, "bytes=262144-", "bytes=524288-"]
    assert sorted(os.listdir(tmp_path)) == ["file.bin", "hashes.json"]


def test_part_that_was_complete(server, fetch, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    (tmp_path / "file.bin.part.tag").write_text(server.etag)
    fetch("weights")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_part_that_is_too_long(server, fetch, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    (tmp_path / "file.bin.part.tag").write_text(server.etag)
    with pytest.raises(InputError, match="answers 416"):
        fetch("weights")
    fetch("weights")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_source_changed_between_two_parts(server, fetch, tmp_path):
    server.cut = 300_000
    with pytest.raises(InputError):
        fetch("data")
    server.cut, server.content, server.etag = None, CONTENT[::-1], '"two"'
    fetch("data")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT[::-1]


def test_wrong_published_hash(server, fetch, tmp_path):
    with pytest.raises(InputError, match="SHA-256 begins .{8}, expected 00000000; the file was removed"):
        fetch("other")
    assert os.listdir(tmp_path) == []


def test_damaged_file_is_fetched_again(server, fetch, tmp_path):
    fetch("data")
    (tmp_path / "file.bin").write_bytes(CONTENT[:-1])
    fetch("data")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and len(server.asked) == 2


def test_source_that_no_longer_has_the_file_seen_before(server, fetch, tmp_path):
    fetch("data")
    (tmp_path / "file.bin").unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(InputError, match="not the file seen before.* remove file.bin from"):
        fetch("data")
    assert os.listdir(tmp_path) == ["hashes.json"]


def test_names_and_sources_that_do_not_answer(server, fetch, tmp_path):
    with pytest.raises(InputError, match="'dta' is not published here, expected one of data, weights"):
        fetch("dta")
    with pytest.raises(InputError, match="closed answers 403 Forbidden; ask its authors"):
        fetch("closed")
    with pytest.raises(InputError, match="elsewhere cannot be downloaded: only by post"):
        fetch("elsewhere")
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match="file.bin does not answer"):
        fetch("data")
    assert os.listdir(tmp_path) == []


def test_command_line(server, tmp_path, capsys):
    assert download.main(["data", "--folder", str(tmp_path)]) == 0
    assert "the source publishes none" in capsys.readouterr().out
    assert download.main([]) == 0 and "elsewhere" in capsys.readouterr().out
    assert download.main(["dta"]) == 1
    assert capsys.readouterr().err.startswith("error: 'dta' is not published here")


def test_folders_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="the folder cannot be made .*tmp"):
        download.fetch("data", tmp_path / "file" / "x", progress=False)
    (tmp_path / "file.bin.part").mkdir()
    with pytest.raises(InputError, match="file.bin cannot be written to .* make room or give another folder"):
        download.fetch("data", tmp_path, progress=False)


@pytest.mark.parametrize("text", ["", "{", "3", "[1]"])
def test_damaged_list_of_hashes_is_named(server, fetch, tmp_path, text):
    (tmp_path / "hashes.json").write_text(text)
    with pytest.raises(InputError, match="hashes.json is damaged; remove it"):
        fetch("data")


def test_two_downloads_of_one_file_are_kept_apart(server, fetch, tmp_path):
    part = tmp_path / "file.bin.part"
    part.write_bytes(CONTENT[:999])
    with open(part, "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="file.bin.part is being downloaded by another process"):
            fetch("data")
    assert part.read_bytes() == CONTENT[:999]
    fetch("data")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_addresses_are_https():
    for published in download.PUBLISHED.values():
        assert all(url.startswith("https://") for url in published.files.values())
        assert published.files or published.hint
