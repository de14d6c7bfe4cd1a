"""Video in and out: odd sizes, sound, and files that are none."""

from pathlib import Path

import numpy as np
import pytest

from qwenlab.core.errors import UserError
from qwenlab.thinkseg.video import read_frames, video_info, write_video


def frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    ramp = np.linspace(0, 200, width, dtype=np.uint8)[None, :, None].repeat(height, 0).repeat(3, 2)
    return [np.roll(ramp, 3 * index, 1) for index in range(count)]


def tone(seconds: float, rate: int = 16000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def samples(path: Path) -> np.ndarray:
    import av

    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def test_frames_come_back_in_number_size_and_look(tmp_path: Path):
    assert write_video(tmp_path / "v.mp4", frames(6), 8) == 6
    back = list(read_frames(tmp_path / "v.mp4"))
    assert len(back) == 6 and back[0].shape == (48, 64, 3)
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(back, frames(6), strict=True)) < 4
    info = video_info(tmp_path / "v.mp4")
    assert (info.width, info.height, info.fps, info.frames, info.has_sound) == (64, 48, 8.0, 6, False)


def test_odd_sizes_are_padded_never_cropped(tmp_path: Path):
    write_video(tmp_path / "v.mp4", frames(2, 47, 63), 8)
    assert next(read_frames(tmp_path / "v.mp4")).shape == (48, 64, 3)


def test_a_made_sound_track_is_heard_again(tmp_path: Path):
    write_video(tmp_path / "v.mp4", frames(8), 8, sound=tone(1.0))
    heard = samples(tmp_path / "v.mp4")
    assert abs(len(heard) - 16000) < 3000
    pitch = np.argmax(np.abs(np.fft.rfft(heard[2000:14000]))) * 16000 / 12000
    assert abs(pitch - 440) < 5


def test_the_original_sound_goes_along_as_long_as_the_pictures(tmp_path: Path):
    write_video(tmp_path / "in.mp4", frames(16), 8, sound=tone(2.0))
    write_video(tmp_path / "all.mp4", frames(16), 8, sound_of=tmp_path / "in.mp4")
    write_video(tmp_path / "half.mp4", frames(8), 8, sound_of=tmp_path / "in.mp4")
    assert np.array_equal(samples(tmp_path / "all.mp4"), samples(tmp_path / "in.mp4"))  # packets as they were
    assert abs(len(samples(tmp_path / "half.mp4")) - 16000) < 3000


def test_sound_that_mp4_cannot_hold_is_encoded_anew(tmp_path: Path):
    import av

    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        video, audio = container.add_stream("libx264", rate=8), container.add_stream("pcm_s16le", rate=16000)
        video.width, video.height, video.pix_fmt, audio.layout = 64, 48, "yuv420p", "mono"
        for pixels in frames(8):
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode())
        block = av.AudioFrame.from_ndarray((tone(1.0)[None] * 30000).astype(np.int16), format="s16", layout="mono")
        block.sample_rate, block.pts = 16000, 0
        container.mux(audio.encode(block))
        container.mux(audio.encode())
    write_video(tmp_path / "out.mp4", frames(8), 8, sound_of=tmp_path / "in.mkv")
    heard = samples(tmp_path / "out.mp4")
    assert abs(np.argmax(np.abs(np.fft.rfft(heard[2000:14000]))) * 16000 / 12000 - 440) < 5


def test_a_video_without_sound_stays_silent(tmp_path: Path):
    write_video(tmp_path / "in.mp4", frames(4), 8)
    write_video(tmp_path / "out.mp4", frames(4), 8, sound_of=tmp_path / "in.mp4")
    assert not video_info(tmp_path / "out.mp4").has_sound


def test_reading_stops_after_max_frames(tmp_path: Path):
    write_video(tmp_path / "v.mp4", frames(6), 8)
    assert len(list(read_frames(tmp_path / "v.mp4", 2))) == 2


def test_no_frame_frames_of_two_sizes_and_a_missing_folder_leave_nothing(tmp_path: Path):
    with pytest.raises(UserError, match="no frames to write"):
        write_video(tmp_path / "v.mp4", [], 8)
    with pytest.raises(UserError, match="frame 1 is of another size"):
        write_video(tmp_path / "v.mp4", [*frames(1), *frames(1, 32, 32)], 8)
    assert list(tmp_path.iterdir()) == []


def test_missing_corrupt_and_pictureless_files_are_one_sentence(tmp_path: Path):
    import av

    with pytest.raises(UserError, match="no such video"):
        list(read_frames(tmp_path / "none.mp4"))
    (tmp_path / "text.mp4").write_text("this is no video")
    with pytest.raises(UserError, match="cannot be read as a video"):
        list(read_frames(tmp_path / "text.mp4"))
    write_video(tmp_path / "v.mp4", frames(6), 8)
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "v.mp4").read_bytes()[:400])
    with pytest.raises(UserError, match="cannot be read as a video"):
        list(read_frames(tmp_path / "cut.mp4"))
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        audio = container.add_stream("aac", rate=16000, layout="mono")
        block = av.AudioFrame.from_ndarray(tone(0.2)[None], format="fltp", layout="mono")
        block.sample_rate, block.pts = 16000, 0
        container.mux(audio.encode(block))
        container.mux(audio.encode())
    with pytest.raises(UserError, match="no video stream"):
        video_info(tmp_path / "sound.mp4")


def test_a_video_of_no_frames_is_refused(tmp_path: Path):
    import av

    with av.open(str(tmp_path / "empty.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(UserError, match=r"holds no frame|cannot be read"):
        list(read_frames(tmp_path / "empty.mkv"))


def test_a_video_is_written_the_same_twice(tmp_path: Path):
    """Metrics hang on the pixels that come back; with x264's macroblock tree runs differed."""
    rng = np.random.default_rng(0)
    noisy = [np.clip(frame[:, :64].astype(int) + rng.integers(0, 40, (48, 64, 3)), 0, 255) for frame in frames(24)]
    written = []
    for number in range(6):
        write_video(tmp_path / f"{number}.mp4", [frame.astype(np.uint8) for frame in noisy], 8, crf=6)
        written.append((tmp_path / f"{number}.mp4").read_bytes())
    assert len(set(written)) == 1
