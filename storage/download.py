"""One file from the web, whole."""

from storage.errors import PipelineError, network_cause

TIMEOUT_S = 60.0


def download(url: str, what: str, remedy: str) -> bytes:
    """What an address gives; PipelineError if it cannot be had, with what it is and the remedy."""
    import requests  # noqa: PLC0415  who has the file need not wait for it

    try:
        response = requests.get(url, timeout=TIMEOUT_S)
        response.raise_for_status()
    except requests.RequestException as error:
        msg = f"{what} cannot be downloaded from {url}: {network_cause(error)}. {remedy}"
        raise PipelineError(msg) from error
    return response.content
