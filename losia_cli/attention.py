"""Which of torch's attention kernels comes last."""

import os


def put_cudnn_last() -> None:
    """Torch 2.11's first choice on an H100 comes after the others, unless the user says otherwise.

    It gives NaN in the gradient of some padded batches (pytorch/pytorch#196678) and makes a plan
    for every new shape, of which decoding has one at each token. Read at the first attention.
    """
    os.environ.setdefault("TORCH_CUDNN_SDPA_DEPRIORITIZED", "1")
