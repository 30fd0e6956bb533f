"""The strict reader: what it reads, and that each kind of damage is named."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path

import pytest
import torch

from sfdkit.data.shards.decode import decode_frames, jpeg_size
from sfdkit.data.shards.format import pack_frames
from sfdkit.data.shards.reader import ClipError, raw_clip, read_clips, read_raw_clips
from sfdkit.errors import ShardError
from tests.shards import (
    clip_key,
    clip_members,
    decode_picture,
    frame_colour,
    jpeg,
    make_shards,
    read_members,
    write_tar,
)


class Pipe(io.RawIOBase):
    """A stream that cannot seek and gives 100 bytes at most, like a slow connection."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        data = self._inner.read(min(100, len(buffer)))
        buffer[: len(data)] = data
        return len(data)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"), "train", [5], frames=3) / "train-00000.tar"


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_equal_tarfile_for_all_formats_and_long_names(tmp_path: Path, tar_format: int) -> None:
    members = [("a.json", b"x" * 513), ("b" * 60 + "/" + "c" * 60 + ".frames", b""), ("d.json", b"y" * 512)]
    if tar_format != tarfile.USTAR_FORMAT:
        members.append(("e" * 300 + ".json", b"z"))
        members.append(("fä.json", b"w"))
    write_tar(tmp_path / "a.tar", members, tar_format)
    assert [(member.name, member.data) for member in read_members(tmp_path / "a.tar")] == members
    pipe = Pipe((tmp_path / "a.tar").read_bytes())
    assert [(member.name, member.data) for member in read_members(pipe)] == members  # type: ignore[arg-type]


def test_position_points_at_the_header(shard: Path) -> None:
    data = shard.read_bytes()
    for member in read_members(shard):
        assert data[member.position :].startswith(member.name.encode())


def test_a_size_in_a_pax_record_and_in_base_256_is_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.json")
    info.size = 5
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + (5).to_bytes(11, "big")
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(header) + b"hello".ljust(512, b"\0") + bytes(1024))
    assert [member.data for member in read_members(path)] == [b"hello"]

    info.pax_headers = {"size": "5"}
    info.size = 0
    path.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + b"hello".ljust(512, b"\0") + bytes(1024))
    assert [member.data for member in read_members(path)] == [b"hello"]


def test_clips_from_a_file_and_from_a_stream(shard: Path) -> None:
    clips = list(read_clips(shard))
    assert [clip["key"] for clip in clips] == [clip_key("train", number) for number in range(5)]
    assert clips[3]["meta"]["identity"] == "train-person-3"
    assert list(read_clips(Pipe(shard.read_bytes()))) == clips  # type: ignore[arg-type]


def test_a_clip_can_be_read_from_its_own_bytes(shard: Path) -> None:
    data = shard.read_bytes()
    for raw in read_raw_clips(shard):
        assert raw_clip(data[raw.position : raw.stop], raw.shard, raw.position) == raw
        for start, stop in ((0, -512), (512, 0), (0, 512)):
            with pytest.raises(ClipError, match=r"train-00000.tar, byte \d+: ") as caught:
                raw_clip(data[raw.position + start : raw.stop + stop], raw.shard, raw.position)
            assert caught.value.reason == "archive"


@pytest.mark.parametrize("seekable", [True, False])
def test_a_cut_anywhere_is_an_error_that_names_shard_and_byte(shard: Path, seekable: bool) -> None:
    data = shard.read_bytes()
    end = max(member.position for member in read_members(shard))
    end += 512 + -(-len(list(read_members(shard))[-1].data) // 512) * 512 + 1024
    for cut in [0, *range(1, end, 509), *range(512, end, 512)]:
        stream = io.BytesIO(data[:cut]) if seekable else Pipe(data[:cut])
        with pytest.raises(ShardError, match=r"Shard <stream>, byte \d+: "):
            list(read_clips(stream))  # type: ignore[arg-type]
    assert len(list(read_clips(io.BytesIO(data[:end])))) == 5


def damaged(shard: Path, tmp_path: Path, position: int, data: bytes) -> Path:
    content = bytearray(shard.read_bytes())
    content[position : position + len(data)] = data
    path = tmp_path / "damaged.tar"
    path.write_bytes(bytes(content))
    return path


def test_a_damaged_header_is_an_error_at_its_byte(shard: Path, tmp_path: Path) -> None:
    position = list(read_members(shard))[4].position
    for offset in (3, 130, 150, 160):
        path = damaged(shard, tmp_path, position + offset, b"Q")
        with pytest.raises(ShardError, match=rf"{path}, byte {position}: this is no tar header"):
            list(read_members(path))


def test_a_zeroed_header_is_not_taken_for_the_end(shard: Path, tmp_path: Path) -> None:
    position = list(read_members(shard))[4].position
    with pytest.raises(ShardError, match=f"byte {position + 512}: the end mark is one zero block"):
        list(read_members(damaged(shard, tmp_path, position, bytes(512))))
    with pytest.raises(ShardError, match="bytes after the end mark"):
        list(read_members(damaged(shard, tmp_path, position, bytes(1024))))


def test_other_files_are_no_shards(tmp_path: Path) -> None:
    path = tmp_path / "page.tar"
    path.write_bytes(b"<html>" + b"not found " * 100)
    with pytest.raises(ShardError, match=r"page.tar, byte 0: this is no tar header"):
        list(read_members(path))
    path.write_bytes(b"")
    with pytest.raises(ShardError, match="byte 0: the file is empty"):
        list(read_members(path))
    with pytest.raises(ShardError, match="Cannot open the shard"):
        list(read_clips(tmp_path / "nothing.tar"))


def test_members_must_be_named_files(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, [("", b"x")])
    with pytest.raises(ShardError, match="byte 0: a member has no name"):
        list(read_members(path))
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("a.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(ShardError, match=r"'a.json' is of type b'2'"):
        list(read_members(path))


def test_partial_and_misplaced_members(tmp_path: Path) -> None:
    one, two = clip_members("train", 0, 2, 16), clip_members("train", 1, 2, 16)
    path = tmp_path / "a.tar"
    for members, message in [
        ([*one, two[0]], "clip 'train-00001' is partial"),
        ([one[0], *two], "'train-00001.json' stands where train-00000.frames"),
        ([one[1], *two], "'train-00000.frames' stands where a new clip's KEY.json"),
        ([("a.b.json", b"{}"), ("a.b.frames", b"")], "'a.b.json' stands where a new clip's KEY.json"),
    ]:
        write_tar(path, members)
        with pytest.raises(ShardError, match=message):
            list(read_clips(path))


def test_a_damaged_clip_says_why(tmp_path: Path) -> None:
    (json_name, meta), (frames_name, frames) = clip_members("train", 0, 3, 16)
    other = json.loads(meta) | {"key": "other"}
    without = {name: value for name, value in json.loads(meta).items() if name != "identity"}
    path = tmp_path / "a.tar"
    for body, packed, reason in [
        (b"{", frames, "json"),
        (json.dumps(other).encode(), frames, "json"),
        (json.dumps(without).encode(), frames, "json"),
        (json.dumps(json.loads(meta) | {"crop": "face"}).encode(), frames, "json"),
        (b"[]", frames, "json"),
        (meta, frames[:-5], "frames"),
        (meta, b"\0\0", "frames"),
        (meta, pack_frames([b"x"]), "frames"),
    ]:
        write_tar(path, [(json_name, body), (frames_name, packed)])
        with pytest.raises(ClipError, match=r"Clip 'train-00000' in shard .*a.tar, byte 0") as caught:
            list(read_clips(path))
        assert caught.value.reason == reason


def test_only_the_chosen_frames_are_decoded(shard: Path) -> None:
    clip = next(iter(read_clips(shard)))
    frames = decode_frames(clip, [2, 0, 2])
    assert frames.shape == (3, 3, 32, 32) and frames.dtype == torch.uint8
    for position, frame in enumerate([2, 0, 2]):
        mean = frames[position].float().mean((1, 2))
        assert torch.allclose(mean, torch.tensor(frame_colour(0, frame), dtype=torch.float32), atol=3)
    clip["frames"] = pack_frames([jpeg((9, 9, 9), 32), b"junk", jpeg((9, 9, 9), 16)])
    assert decode_frames(clip, [0]).shape == (1, 3, 32, 32)
    with pytest.raises(ClipError, match="Cannot decode frame 1 of clip 'train-00000'"):
        decode_frames(clip, [0, 1])
    with pytest.raises(ClipError, match="Frame 2 of clip 'train-00000' is 16 x 16, its json says 32 x 32") as caught:
        decode_frames(clip, [2])
    assert caught.value.reason == "oversized"
    with pytest.raises(ClipError, match="frame 3"):
        decode_frames(clip, [3])


def test_a_picture_that_announces_more_than_memory_holds_is_not_decoded(shard: Path) -> None:
    picture = bytearray(jpeg((9, 9, 9), 32))
    assert jpeg_size(picture) == (32, 32)
    place = picture.index(b"\xff\xc0") + 5
    picture[place : place + 4] = struct.pack(">2H", 65500, 65000)
    clip = next(iter(read_clips(shard)))
    clip["frames"] = pack_frames([bytes(picture), bytes(picture[:2] + picture[-2:])])
    with pytest.raises(ClipError, match="Frame 0 of clip 'train-00000' is 65000 x 65500") as caught:
        decode_frames(clip, [0])
    assert caught.value.reason == "oversized"
    with pytest.raises(ClipError, match="announces no size"):
        decode_frames(clip, [1])


def test_decode_gives_rgb_and_refuses_cut_pictures() -> None:
    picture = jpeg((200, 100, 30), 32)
    assert torch.allclose(decode_picture(picture, 32).float().mean((1, 2)), torch.tensor([200.0, 100.0, 30.0]), atol=2)
    middle = len(picture) // 2
    for broken, message in [
        (picture[:middle], "is cut"),
        (b"", "announces no size"),
        (b"\x89PNG", "announces no size"),
        (picture[:40] + picture[-40:], "announces no size"),
        (b"PN" + picture[2:], "is no JPEG file"),
        (picture[: picture.index(b"\xff\xc0") + 19] + picture[-2:], "is damaged"),
    ]:
        with pytest.raises(ClipError, match=message) as caught:
            decode_picture(broken, 32)
        assert caught.value.reason == "picture"
