"""Opening a client for a command: whose credentials, which validator."""

from chutes_core.sdk import credentials
from chutes_core.sdk.client import ApiClient
from chutes_core.sdk.config import load_config


def management() -> ApiClient:
    """Return a client that signs with the registered hotkey (else with an API key).

    Raises:
        Invalid: ``no_api_url`` or ``not_registered``.
    """
    config = load_config()
    return ApiClient(config.require_api_url(), credentials.for_management(config))


def calls() -> ApiClient:
    """Return a client that calls chutes, with an API key.

    Raises:
        Invalid: ``no_api_url`` or ``no_api_key``.
    """
    config = load_config()
    return ApiClient(config.require_api_url(), credentials.for_calls(config))
