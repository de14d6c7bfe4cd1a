"""The sound of a video as samples, by PyAV."""

from pathlib import Path

import numpy as np

from qwenlab.core.errors import UserError


def read_sound(path: str | Path, rate: int = 16000) -> np.ndarray | None:
    """Mono samples float32 `[S]` in -1..1 at `rate` a second; None for a video without sound.

    Raises:
        UserError: when the file is missing or cannot be decoded.
    """
    import av

    if not Path(path).is_file():
        raise UserError(f"{path}: no such video.")
    blocks: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                return None
            resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
            for frame in container.decode(audio=0):
                blocks += [one.to_ndarray()[0] for one in resampler.resample(frame)]
            blocks += [one.to_ndarray()[0] for one in resampler.resample(None)]
    except av.FFmpegError as error:
        raise UserError(f"{path}: its sound cannot be read ({error.strerror}).") from error
    return np.concatenate(blocks).astype(np.float32) if blocks else None
