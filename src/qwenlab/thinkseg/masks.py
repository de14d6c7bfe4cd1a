"""What `transformers` leaves out without the package `kernels`: mask NMS, filled holes, no sprinkles.

Without it `Sam3VideoModel` says so once, in a log, and goes on with double detections and ragged masks. `install`
puts the functions below in the place of the missing kernels, so that the library's own code runs as it was written.
"""

from types import SimpleNamespace

import numpy as np


def mask_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU `[N, M]` of boolean masks `[N, H, W]` and `[M, H, W]`; 0 where both are empty."""
    area = int(np.prod(first.shape[1:]))
    one, two = (np.asarray(masks, bool).reshape(len(masks), area).astype(np.float32) for masks in (first, second))
    common = one @ two.T
    union = one.sum(1)[:, None] + two.sum(1)[None] - common
    return common / np.maximum(union, 1)


def nms(ious: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Indices of the detections that stay, the best first: none overlaps a better one by more than `threshold`.

    Args:
        ious: between all detections, `[N, N]`.
        scores: `[N]`; of equal ones the first is the better one.
    """
    kept: list[int] = []
    for index in np.argsort(-np.asarray(scores), kind="stable").tolist():
        if all(ious[index, other] <= threshold for other in kept):
            kept.append(index)
    return kept


def component_areas(mask: np.ndarray) -> np.ndarray:
    """For each true pixel of `[H, W]` the area of its 8-connected component, elsewhere 0; int32 `[H, W]`."""
    from scipy.ndimage import label

    labels, _ = label(mask, np.ones((3, 3)))
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return areas[labels].astype(np.int32)


def tidy(mask: np.ndarray, area: int) -> np.ndarray:
    """Fill holes and drop specks of up to `area` pixels, bool `[H, W]`.

    As in SAM 3, a speck must also be no more than half of the mask: a tiny thing stays. Unlike there, the largest
    component stays in any case, so that a mask of specks alone is not emptied.
    """
    if area <= 0 or not mask.any():
        return mask
    background = component_areas(~mask)
    mask = mask | ((background > 0) & (background <= area))
    own = component_areas(mask)
    return mask & ~((own > 0) & (own <= min(area, int(mask.sum()) // 2)) & (own < own.max()))


def install() -> bool:
    """Give `Sam3VideoModel` these functions if it has no kernels of its own; True when it was given them."""
    import torch
    from transformers.models.sam3_video import modeling_sam3_video as library

    def generic_nms(ious, scores, threshold, use_iou_matrix=True):
        kept = nms(ious.float().cpu().numpy(), scores.float().cpu().numpy(), threshold)
        return torch.tensor(kept, dtype=torch.long, device=ious.device)

    def cc_2d(masks, get_counts=True):
        areas = np.stack([component_areas(mask[0]) for mask in masks.bool().cpu().numpy()])
        counts = torch.from_numpy(areas)[:, None].to(masks.device)
        return torch.zeros_like(counts), counts  # the labels themselves are never read

    library._load_cv_utils_kernel_once()
    if library.cv_utils_kernel is False:
        library.cv_utils_kernel = SimpleNamespace(generic_nms=generic_nms, cc_2d=cc_2d)
        return True
    return False
