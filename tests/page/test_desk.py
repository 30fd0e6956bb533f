from __future__ import annotations

import os
import shutil
import threading
import time
import warnings
from pathlib import Path

import pytest

from sfdkit.errors import SfdkitWarning
from sfdkit.page.desk import Desk
from sfdkit.page.job import Job, Stopped


def files_of(desk: Desk) -> list[Path]:
    return [path for path in desk.folder.rglob("*") if path.is_file()]


def test_work_tells_what_it_said_and_keeps_its_results(desk: Desk) -> None:
    def work(folder: Path) -> Path:
        print(f"wrote {folder / 'out.txt'}: 2 < 3")
        warnings.warn("give --crop none", SfdkitWarning, stacklevel=1)
        (folder / "out.txt").write_text("made")
        return folder / "out.txt"

    made, said = desk.run("one", work)
    assert made.read_text() == "made" and desk.folder in made.parents
    assert said == "wrote out.txt: 2 &lt; 3<br>give crop none"
    desk.leave("another")
    assert made.exists()
    desk.leave("one")
    assert not files_of(desk)


@pytest.mark.parametrize("session", ["../../out", "/etc", "a" * 5000, None])
def test_results_lie_in_the_folder_whatever_a_session_is_called(desk: Desk, session: str | None) -> None:
    folder, _ = desk.run(session, lambda folder: folder)
    assert desk.folder in folder.resolve().parents


def test_work_that_fails_leaves_nothing(desk: Desk) -> None:
    def work(folder: Path) -> None:
        (folder / "half").write_text("made")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        desk.run("one", work)
    assert not files_of(desk)


def test_work_is_stopped_wherever_it_is_and_cleans_up(desk: Desk) -> None:
    seen: list[str] = []
    began = threading.Event()

    def work(folder: Path) -> None:
        try:
            (folder / "half").write_text("made")
            began.set()
            while True:
                try:
                    time.sleep(0.01)
                except Exception:  # what takes any fault for its own does not take this one
                    seen.append("kept on")
        finally:
            seen.append("closed")

    caught: list[BaseException] = []

    def run() -> None:
        try:
            desk.run("one", work)
        except BaseException as error:
            caught.append(error)

    thread, waiting = threading.Thread(target=run), threading.Thread(target=run)
    thread.start()
    assert began.wait(60)
    waiting.start()
    time.sleep(0.1)
    assert not desk.stop("another")
    time.sleep(0.1)
    assert thread.is_alive()
    assert desk.stop("one")
    thread.join(60)
    waiting.join(60)
    assert seen == ["closed"], "the one that waited for its turn never began"
    assert [type(error) for error in caught] == [Stopped, Stopped] and not files_of(desk)


def test_a_job_that_is_over_or_was_stopped_before_is_left_alone() -> None:
    job = Job(lambda: 3)
    assert job.result() == 3
    job.stop()
    stopped = Job(lambda: pytest.fail("it ran"))
    stopped.stop()
    with pytest.raises(Stopped):
        stopped.result()


def test_the_end_stops_what_is_under_way() -> None:
    began = threading.Event()

    def work(folder: Path) -> None:
        began.set()
        while True:
            time.sleep(0.01)

    def run() -> None:
        with pytest.raises(Stopped):
            desk.run("one", work)

    with Desk() as desk:
        thread = threading.Thread(target=run)
        thread.start()
        assert began.wait(60)
    thread.join(60)
    assert not thread.is_alive() and not desk.folder.exists()


def test_old_files_go_and_the_examples_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    with Desk(age=100.0) as desk:
        (desk.examples / "puppet.png").write_text("drawn")
        old, new = desk.folder / "old.png", desk.folder / "new.png"
        for path in (old, new):
            path.write_text("uploaded")
        desk.sweep()
        assert old.exists()
        time.sleep(1)
        os.utime(new)
        later = old.stat().st_ctime + desk.age + 0.5
        monkeypatch.setattr("sfdkit.page.desk.time.time", lambda: later)
        desk.sweep()
        assert {path.name for path in files_of(desk)} == {"puppet.png", "new.png"}


def test_old_files_go_though_folders_go_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    with Desk() as desk:
        folders = [desk.folder / "results" / name for name in "ab"]
        for folder in folders:
            folder.mkdir(parents=True)
            (folder / "out.txt").write_text("made")
        unlink = Path.unlink

        def leave(path: Path) -> None:
            unlink(path)
            for folder in folders:
                if folder != path.parent:
                    shutil.rmtree(folder)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", leave)
            desk.age = -1.0
            desk.sweep()
        assert not files_of(desk)
