"""GPUs as a Docker engine is asked for them: by UUID, and only those that the launch was granted.

Pure. Invariant: a container without granted device GPUs gets no device request at all, so that a
stand-in never sees a real device of the host. The engine's refusals are named in `failures`.
Source of the form: the engine's API, HostConfig.DeviceRequests (since API 1.40).
"""

from collections.abc import Sequence

from docker.types import DeviceRequest

CAPABILITIES = (("gpu",), ("compute", "utility"))


def device_requests(gpu_uuids: Sequence[str]) -> list[DeviceRequest]:
    """Return the requests for exactly these GPUs; none for no GPU.

    >>> device_requests([])
    []
    >>> device_requests(["GPU-1"])[0]["DeviceIDs"]
    ['GPU-1']
    """
    if not gpu_uuids:
        return []
    flat = [[name for group in CAPABILITIES for name in group]]
    return [DeviceRequest(device_ids=list(gpu_uuids), capabilities=flat)]
