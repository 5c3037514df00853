"""llmkit: presets, counted money, one owner of retries and sessions that survive, over LiteLLM.

    import llmkit
    print(llmkit.ask("What is the capital of France?"))

Importing llmkit is quick: each name is imported on first use (`__init__.pyi` lists them for editors), and LiteLLM,
which takes seconds, with the first request.
"""

from importlib import import_module as _import_module

__version__ = "0.1.0"

_HOMES = {
    "api": ("aask", "aquote", "ask", "astream", "quote", "stream"),
    "backend": ("ApiBackend",),
    "chat": ("ChatModel",),
    "client": ("MultiAIClient",),
    "config": ("Config",),
    "core.retry": ("Retry",),
    "core.streams": ("AsyncStream", "Stream"),
    "core.types": ("Piece", "Price", "Reply", "Request", "Usage"),
    "endpoint": ("EndpointClient", "aget_session_token", "get_session_token"),
    "errors": (
        "APIConnectionError",
        "APIError",
        "AuthenticationError",
        "BadGatewayError",
        "BadRequestError",
        "BudgetExceededError",
        "ConfigError",
        "ConflictError",
        "ContentPolicyViolationError",
        "ContextWindowExceededError",
        "IncompleteStreamError",
        "InternalServerError",
        "InvalidRequestError",
        "LlmkitError",
        "LocalModelError",
        "NotFoundError",
        "PaymentRequiredError",
        "PermissionDeniedError",
        "PresetError",
        "ProviderError",
        "QuotaExceededError",
        "RateLimitError",
        "ResponseError",
        "SchemaError",
        "ServiceUnavailableError",
        "SessionBusyError",
        "StoreError",
        "Timeout",
        "UnknownPresetError",
        "UnknownProviderError",
        "UnknownSessionError",
        "UnprocessableEntityError",
        "UnsupportedParamsError",
    ),
    "jobs.workers.partitions": ("dask_map",),
    "jobs": ("Job", "JobInfo", "Jobs", "MapQuote", "MapResult", "amap", "map"),
    "llm": ("LLM",),
    "money.account": ("Charge",),
    "money.budgets": ("Budget", "BudgetState", "Budgets"),
    "money.ledger": ("Ledger", "LedgerRow"),
    "money.quotes": ("Quote",),
    "providers.aixplain.response": ("ModelResponse", "ResponseStatus", "StreamChunk"),
    "prepare.deployed": ("Resolution",),
    "providers.deployments": ("Deployment", "Model"),
    "providers.practicus.answers": ("AsyncEndpointStream", "EndpointAnswer", "EndpointItem", "EndpointStream"),
    "runs": ("RunInfo", "Runs"),
    "sessions.requests": ("Answer",),
    "sessions.replies": ("ChatModelConfig", "ChatPiece", "ChatReply", "Rerun"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = {
    "config": "config",
    "errors": "errors",
    "presets": "presets",
    "templates": "presets.templates",
    "testing": "testing",
}

__all__ = sorted([*_HOME_OF, *_MODULES, "__version__"])  # noqa: PLE0605 - one list, not two


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name in _MODULES:
        return _import_module(f"llmkit.{_MODULES[name]}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'llmkit' has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(f"llmkit.{_HOME_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
