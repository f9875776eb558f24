"""Nothing under the final name is ever partial."""

import os
import signal
import subprocess
import sys
import time

import pytest

from geounet.errors import OutputError, OutputExistsError
from geounet.output import atomic, check_output


def test_what_was_written_appears_whole_under_its_name(tmp_path):
    with atomic(tmp_path / "a.tif") as part:
        assert part.parent == tmp_path
        assert part.suffix == ".tif"
        part.write_text("all")
        assert not (tmp_path / "a.tif").exists()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.tif", "all")]


def test_a_failure_leaves_things_as_they_were(tmp_path):
    (tmp_path / "a.tif").write_text("before")

    def fail(part):
        part.write_text("half")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"), atomic(tmp_path / "a.tif", overwrite=True) as part:
        fail(part)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.tif", "before")]


def test_what_is_there_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "a.tif"
    path.write_text("before")
    with pytest.raises(OutputExistsError, match=r"a\.tif exists already"), atomic(path) as part:
        part.write_text("never")
    with atomic(path, overwrite=True) as part:
        part.write_text("after")
    assert path.read_text() == "after"


def test_what_another_wrote_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "a.tif"

    def write_both(part):
        part.write_text("late")
        path.write_text("early")

    with pytest.raises(OutputExistsError, match=r"exists already"), atomic(path) as part:
        write_both(part)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.tif", "early")]


def test_a_missing_folder_and_a_folder_s_name_are_refused(tmp_path):
    with pytest.raises(OutputError, match=r"there is no folder .*nowhere; make it first"):
        check_output(tmp_path / "nowhere" / "a.tif")
    with pytest.raises(OutputError, match=r"is a folder; give the name of a file"):
        check_output(tmp_path)


def test_a_read_only_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # the mode of a folder does not bind the superuser
    with pytest.raises(OutputError, match=r"read-only; name an output elsewhere"):
        check_output(tmp_path / "a.tif")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL here")
def test_killed_at_any_moment_there_is_no_output_or_a_whole_one(tmp_path):
    path = tmp_path / "a.txt"
    code = (
        "import sys, time\n"
        "from geounet.output import atomic\n"
        "with atomic(sys.argv[1]) as part, part.open('w') as file:\n"
        "    for _ in range(1000):\n"
        "        print('line', file=file, flush=True)\n"
        "        time.sleep(0.01)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
    while not any(p.stat().st_size for p in tmp_path.iterdir()):
        assert writer.poll() is None
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert not path.exists()
    with atomic(path) as part:  # what was left does not stand in the way
        part.write_text("again")
    assert path.read_text() == "again"
