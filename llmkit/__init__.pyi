# What type checkers and editors see; `__init__.py` imports each name when it is first asked for.

from llmkit import config as config
from llmkit import errors as errors
from llmkit import presets as presets
from llmkit import templates as templates
from llmkit import testing as testing
from llmkit._account import (
    Charge as Charge,
)
from llmkit._chatreply import (
    ChatModelConfig as ChatModelConfig,
)
from llmkit._chatreply import (
    ChatPiece as ChatPiece,
)
from llmkit._chatreply import (
    ChatReply as ChatReply,
)
from llmkit._chatreply import (
    Rerun as Rerun,
)
from llmkit._conversation import (
    Answer as Answer,
)
from llmkit.api import (
    aask as aask,
)
from llmkit.api import aquote as aquote
from llmkit.api import (
    ask as ask,
)
from llmkit.api import (
    astream as astream,
)
from llmkit.api import quote as quote
from llmkit.api import (
    stream as stream,
)
from llmkit.backend import (
    ApiBackend as ApiBackend,
)
from llmkit.budgets import Budget as Budget
from llmkit.budgets import Budgets as Budgets
from llmkit.budgets import BudgetState as BudgetState
from llmkit.chat import (
    ChatModel as ChatModel,
)
from llmkit.client import (
    MultiAIClient as MultiAIClient,
)
from llmkit.config import (
    Config as Config,
)
from llmkit.deployments import (
    Deployment as Deployment,
)
from llmkit.deployments import (
    Model as Model,
)
from llmkit.deployments import (
    Resolution as Resolution,
)
from llmkit.errors import (
    APIConnectionError as APIConnectionError,
)
from llmkit.errors import (
    APIError as APIError,
)
from llmkit.errors import (
    AuthenticationError as AuthenticationError,
)
from llmkit.errors import (
    BadGatewayError as BadGatewayError,
)
from llmkit.errors import (
    BadRequestError as BadRequestError,
)
from llmkit.errors import (
    BudgetExceededError as BudgetExceededError,
)
from llmkit.errors import (
    ConfigError as ConfigError,
)
from llmkit.errors import (
    ConflictError as ConflictError,
)
from llmkit.errors import (
    ContentPolicyViolationError as ContentPolicyViolationError,
)
from llmkit.errors import (
    ContextWindowExceededError as ContextWindowExceededError,
)
from llmkit.errors import (
    IncompleteStreamError as IncompleteStreamError,
)
from llmkit.errors import (
    InternalServerError as InternalServerError,
)
from llmkit.errors import (
    InvalidRequestError as InvalidRequestError,
)
from llmkit.errors import (
    LlmkitError as LlmkitError,
)
from llmkit.errors import (
    LocalModelError as LocalModelError,
)
from llmkit.errors import (
    NotFoundError as NotFoundError,
)
from llmkit.errors import (
    PaymentRequiredError as PaymentRequiredError,
)
from llmkit.errors import (
    PermissionDeniedError as PermissionDeniedError,
)
from llmkit.errors import (
    PresetError as PresetError,
)
from llmkit.errors import (
    ProviderError as ProviderError,
)
from llmkit.errors import (
    QuotaExceededError as QuotaExceededError,
)
from llmkit.errors import (
    RateLimitError as RateLimitError,
)
from llmkit.errors import (
    ResponseError as ResponseError,
)
from llmkit.errors import (
    SchemaError as SchemaError,
)
from llmkit.errors import (
    ServiceUnavailableError as ServiceUnavailableError,
)
from llmkit.errors import (
    SessionBusyError as SessionBusyError,
)
from llmkit.errors import (
    StoreError as StoreError,
)
from llmkit.errors import (
    Timeout as Timeout,
)
from llmkit.errors import (
    UnknownPresetError as UnknownPresetError,
)
from llmkit.errors import (
    UnknownProviderError as UnknownProviderError,
)
from llmkit.errors import (
    UnknownSessionError as UnknownSessionError,
)
from llmkit.errors import (
    UnprocessableEntityError as UnprocessableEntityError,
)
from llmkit.errors import (
    UnsupportedParamsError as UnsupportedParamsError,
)
from llmkit.ledger import Ledger as Ledger
from llmkit.ledger import LedgerRow as LedgerRow
from llmkit.quotes import Quote as Quote
from llmkit.retry import (
    Retry as Retry,
)
from llmkit.streams import (
    AsyncStream as AsyncStream,
)
from llmkit.streams import (
    Stream as Stream,
)
from llmkit.types import (
    Piece as Piece,
)
from llmkit.types import (
    Price as Price,
)
from llmkit.types import (
    Reply as Reply,
)
from llmkit.types import (
    Request as Request,
)
from llmkit.types import (
    Usage as Usage,
)

__version__: str
