"""llmkit: presets, counted money, one owner of retries and sessions that survive, over LiteLLM.

    import llmkit
    print(llmkit.ask("What is the capital of France?"))

Importing llmkit is quick: LiteLLM, which takes seconds, is imported with the first request.
"""

from llmkit import errors
from llmkit._account import Charge
from llmkit._chatreply import ChatModelConfig, ChatPiece, ChatReply, Rerun
from llmkit._conversation import Answer
from llmkit.api import aask, ask, astream, stream
from llmkit.backend import ApiBackend
from llmkit.chat import ChatModel
from llmkit.client import MultiAIClient, Resolution
from llmkit.config import Config
from llmkit.deployments import Deployment, Model
from llmkit.errors import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    BadGatewayError,
    BadRequestError,
    BudgetExceededError,
    ConfigError,
    ConflictError,
    ContentPolicyViolationError,
    ContextWindowExceededError,
    IncompleteStreamError,
    InternalServerError,
    InvalidRequestError,
    LlmkitError,
    LocalModelError,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    PresetError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    ResponseError,
    SchemaError,
    ServiceUnavailableError,
    SessionBusyError,
    StoreError,
    Timeout,
    UnknownPresetError,
    UnknownProviderError,
    UnknownSessionError,
    UnprocessableEntityError,
    UnsupportedParamsError,
)
from llmkit.retry import Retry
from llmkit.stream import AsyncStream, Stream
from llmkit.types import Piece, Price, Reply, Request, Usage

__version__ = "0.1.0"

__all__ = [
    "APIConnectionError",
    "APIError",
    "Answer",
    "ApiBackend",
    "AsyncStream",
    "AuthenticationError",
    "BadGatewayError",
    "BadRequestError",
    "BudgetExceededError",
    "Charge",
    "ChatModel",
    "ChatModelConfig",
    "ChatPiece",
    "ChatReply",
    "Config",
    "ConfigError",
    "ConflictError",
    "ContentPolicyViolationError",
    "ContextWindowExceededError",
    "Deployment",
    "IncompleteStreamError",
    "InternalServerError",
    "InvalidRequestError",
    "LlmkitError",
    "LocalModelError",
    "Model",
    "MultiAIClient",
    "NotFoundError",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "Piece",
    "PresetError",
    "Price",
    "ProviderError",
    "QuotaExceededError",
    "RateLimitError",
    "Reply",
    "Request",
    "Rerun",
    "Resolution",
    "ResponseError",
    "Retry",
    "SchemaError",
    "ServiceUnavailableError",
    "SessionBusyError",
    "StoreError",
    "Stream",
    "Timeout",
    "UnknownPresetError",
    "UnknownProviderError",
    "UnknownSessionError",
    "UnprocessableEntityError",
    "UnsupportedParamsError",
    "Usage",
    "__version__",
    "aask",
    "ask",
    "astream",
    "errors",
    "stream",
]
