"""What generation must give, by whole forward passes."""

import torch


def by_the_rule(model, text, window, count, refresh):
    """Greedy, each token from a whole forward pass; of each, (rows of R, the row that it was drawn from)."""
    end, places = text.shape[1] + count, []
    first = begun = drawn = 0
    while text.shape[1] < end:
        full = text.shape[1] - first > window.rows
        if not begun or full or (window.recent and drawn == refresh):
            begun, drawn = min(text.shape[1], window.rows - refresh + 1), 0
            first = text.shape[1] - begun
        inside, recent = text[:, first:], min(window.recent, begun - 1)
        logits = model.logits(inside, slice(-1, None), recent)
        text = torch.cat((text, logits[:, 0].argmax(-1)[:, None]), 1)
        drawn += 1
        places.append((recent, inside.shape[1] - 1))
    return text, places
