"""A decoding step without the interpreter: its launches are recorded once and then played back.

Eagerly a step of the 7B takes 21 ms on an H200, for its 1,400 launches, while reading the weights
takes 4. A recording (CUDA graph) repeats what was done to the same tensors, so a step reads and
writes tensors that stay, and only the number of keys that it looks at decides its shapes: there is
a recording for each. They last as long as one call of `decode`, as autocast casts anew in the next.

Played back it takes 9. On a CPU, where nothing can be recorded, the same step is run plainly.
"""

import logging
from collections.abc import Callable
from functools import cache

import torch

from storage.text import one_line

_refused: set[torch.device] = set()  # where a step could not be captured; it is not tried again


class CapturedStep:
    """A step that is run once, recorded for each size that comes, and played back."""

    def __init__(self, step: Callable[[], None], device: torch.device) -> None:
        """Keep the step; a CPU records nothing."""
        self._step = step
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._device = device
        can_record = device.type == "cuda" and device not in _refused
        self._side = torch.cuda.Stream(device) if can_record else None
        self._pool = torch.cuda.graph_pool_handle() if self._side else None
        self._is_warm = False

    def __call__(self, size: int) -> None:
        """Do the step.

        Args:
            size: That decides its shapes.
        """
        if self._side is None:
            self._step()
        elif not self._is_warm:  # libraries set themselves up, which must not be recorded
            self._side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side):
                self._step()
            torch.cuda.current_stream().wait_stream(self._side)
            self._is_warm = True
        elif size in self._graphs or self._record(size):
            self._graphs[size].replay()
        else:
            self._step()

    def _record(self, size: int) -> bool:
        """Record the step without doing it; False where it cannot be, now and from now on."""
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"
            ):
                self._step()
        except torch.OutOfMemoryError:
            raise  # fewer rows will fit
        except RuntimeError as error:
            if isinstance(error.__context__, torch.OutOfMemoryError):  # the capture's end hid it
                raise error.__context__ from None
            say_eager(f"the step cannot be captured ({one_line(error)})")
            _refused.add(self._device)
            self._side = None
            return False
        finally:  # a capture that fails as it ends would leave its own
            torch.cuda.set_stream(stream)
        self._graphs[size] = graph
        return True


@cache
def say_eager(reason: str) -> None:
    """Say once that decoding goes on eagerly, and why."""
    logging.getLogger(__name__).warning("decode: captured goes on eagerly: %s", reason)
