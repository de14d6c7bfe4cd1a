"""Video with sound: stream frames from any file, and write an mp4 with a made sound track or with that of a file.

PyAV alone; nothing is shelled out, and no file name ever becomes part of a command or of a concat list.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from qwenlab.core.errors import UserError
from qwenlab.core.io import atomic_path


@dataclass(frozen=True)
class VideoInfo:
    """What a container says about itself; `frames` is 0 when it does not say (it may also be wrong)."""

    width: int
    height: int
    fps: float
    frames: int
    has_sound: bool


@contextmanager
def _opened(path: str | Path) -> Iterator:
    """An open container with a picture stream; whatever FFmpeg says becomes one sentence."""
    import av

    if not Path(path).is_file():
        raise UserError(f"{path}: no such video.")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: has no video stream.")
            yield container
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read as a video ({error.strerror}).") from error


def video_info(path: str | Path) -> VideoInfo:
    """Size, rate and sound of a video.

    Raises:
        UserError: when it is missing or no video.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        sound = bool(container.streams.audio)
        return VideoInfo(stream.width, stream.height, float(rate) if rate else 8.0, stream.frames, sound)


def read_frames(path: str | Path, max_frames: int | None = None) -> Iterator[np.ndarray]:
    """Decode frames one at a time, uint8 `[H, W, 3]`; memory does not grow with the length.

    Raises:
        UserError: when the file is missing, no video, damaged, or holds no frame.
    """
    count = 0
    with _opened(path) as container:
        for frame in container.decode(video=0):
            if max_frames is not None and count >= max_frames:
                break
            yield frame.to_ndarray(format="rgb24")
            count += 1
    if not count:
        raise UserError(f"{path}: holds no frame.")


def _even(pixels: np.ndarray) -> np.ndarray:
    """H.264 needs even sides: an odd last row or column is repeated once, never cropped."""
    height, width = pixels.shape[:2]
    return np.ascontiguousarray(np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


def _mux_samples(container, stream, sound: np.ndarray, rate: int) -> None:
    import av

    step = 1024  # samples of an AAC frame
    for start in range(0, len(sound), step):
        block = np.ascontiguousarray(sound[None, start : start + step], np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _mux_source(container, source, stream, copied: bool, seconds: float) -> None:
    """The first `seconds` of the source's sound: its own packets where mp4 can hold them, else encoded anew."""
    import av

    resampler = None if copied else av.AudioResampler("fltp", stream.layout, stream.rate)
    for packet in source.demux(source.streams.audio[0]):
        if packet.dts is None and copied:
            continue
        if packet.pts is not None and float(packet.pts * packet.time_base) >= seconds:
            break
        if resampler is None:
            packet.stream = stream
            container.mux(packet)
        else:
            for frame in packet.decode():
                for part in resampler.resample(frame):
                    container.mux(stream.encode(part))
    if resampler is not None:
        for part in resampler.resample(None):
            container.mux(stream.encode(part))
        container.mux(stream.encode())


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float,
    crf: int = 12,
    sound: np.ndarray | None = None,
    rate: int = 16000,
    sound_of: str | Path | None = None,
) -> int:
    """Write frames uint8 `[H, W, 3]` of one size as mp4 (H.264, yuv420p), atomically; returns their number.

    Args:
        sound: mono samples `[S]` in -1..1, at `rate` a second.
        sound_of: a file whose sound track goes along, as long as the pictures; one without sound adds none.

    Raises:
        UserError: without a frame, on frames of several sizes, or when the file cannot be written.
    """
    import av

    count, stream, voice, source, copied = 0, None, None, None, False
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        for pixels in map(_even, frames):
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
                # One thread: with more, the bits depend on the number of cores of the machine. And no macroblock
                # tree: with it, on small pictures, two runs of the same x264 wrote different bits.
                stream.options = {"crf": str(crf), "threads": "1", "x264-params": "mbtree=0"}
                if sound is not None:
                    voice = container.add_stream("aac", rate=rate, layout="mono")
                elif sound_of is not None and video_info(sound_of).has_sound:
                    source = av.open(str(sound_of))
                    track = source.streams.audio[0]
                    copied = track.codec_context.name in ("aac", "mp3")
                    layout = "mono" if track.channels == 1 else "stereo"  # containers may not name the layout
                    voice = (
                        container.add_stream_from_template(track)
                        if copied
                        else container.add_stream("aac", rate=track.rate, layout=layout)
                    )
            elif (stream.height, stream.width) != pixels.shape[:2]:
                raise UserError(f"{path}: frame {count} is of another size than the first; one video has one size.")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            count += 1
        if stream is None:
            raise UserError(f"{path}: no frames to write.")
        container.mux(stream.encode())
        if sound is not None:
            _mux_samples(container, voice, sound, rate)
        elif source is not None:
            with source:
                _mux_source(container, source, voice, copied, count / fps)
    return count
