"""`LLM`: a model that is run, or started and polled; failures are returned as responses, never raised."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypedDict

from llmkit.core.params import refuse
from llmkit.errors import InvalidRequestError, LlmkitError
from llmkit.llm import targets
from llmkit.llm.outcomes import as_response, late, locally, result
from llmkit.providers.aixplain import catalogue
from llmkit.providers.aixplain.polled import PollState, Remote
from llmkit.providers.aixplain.response import ModelResponse, ResponseStatus, failed, of_error
from llmkit.providers.prompt import prompt_from
from llmkit.runs import SCHEME, Runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Unpack

    from llmkit.client import MultiAIClient
    from llmkit.core.engine import Backend
    from llmkit.providers.prompt import Prompt
    from llmkit.store import Store

MAX_TOKENS, TEMPERATURE, TIMEOUT_S, WAIT_S = 128, 0.001, 300.0, 0.5
_LABEL = "model_process"
_ELSEWHERE = {
    **dict.fromkeys(("api_base", "base_url", "endpoint"), "run(parameters={…}), a preset or a client has the address"),
    **dict.fromkeys(("system", "max_tokens", "top_p", "timeout"), "give it to run, the system message as context"),
}


class PromptOptions(TypedDict, total=False):
    """The keyword arguments of a run; see `LLM.run`."""

    context: str | None
    prompt: str | None
    history: Sequence[Mapping[str, Any]] | None
    temperature: float | None
    max_tokens: int | None
    top_p: float | None
    name: str
    timeout: float
    parameters: Mapping[str, Any] | None


class LLM:
    """For long runs that are started and polled: in this process, in the background, or at a remote service.

    Args:
        id: a preset's name, a LiteLLM model string, or with *client* the logical name of a deployment; with *url* the
            service's name for it.
        name: for people; the id if none is given.
        description: for people.
        api_key: the provider's key, or the service's, which is sent as `x-api-key` to its own origin only.
        supplier: for people.
        version: for people; "1.0" if none is given.
        function: "text-generation" or None.
        is_subscribed: whether the user has subscribed, for people.
        cost: the price, for people; real prices come from the deployment, `prices.yaml` and LiteLLM.
        temperature: for runs that set none; 0.001 for a LiteLLM model string that accepts one.
        url: the address of a service: `POST url/id` starts a run, and the address in its answer is polled.
        backend_url: the address of the service's catalogue; that of *url* if none is given.
        client: the client with the deployment.
        store: where runs are kept: a Store, its URL or path; the configured one if None.
        ledger, budget: as for `llmkit.ask`.
        backend: what sends the requests; for tests, see `llmkit.testing`.
        additional_info: all other facts about the model, kept as they are.

    Raises:
        InvalidRequestError: the id is empty, or the function is an unknown one.
    """

    def __init__(  # noqa: PLR0913 - these are what such a model is known by
        self,
        id: str,  # noqa: A002 - its name everywhere
        name: str = "",
        description: str = "",
        api_key: str | None = None,
        supplier: Any = "aiXplain",
        version: str | None = None,
        function: Any = None,
        is_subscribed: bool = False,  # noqa: FBT001, FBT002 - as such services have it
        cost: Mapping[str, Any] | None = None,
        temperature: float | None = None,
        *,
        url: str | None = None,
        backend_url: str | None = None,
        client: MultiAIClient | None = None,
        store: Store | str | Path | None = None,
        ledger: Any = None,
        budget: Any = None,
        backend: Backend | None = None,
        **additional_info: Any,
    ) -> None:
        if not isinstance(id, str) or not id.strip():
            raise InvalidRequestError(f"a model needs an id, not {id!r}")
        if function is not None and str(getattr(function, "value", function)) not in targets.FUNCTIONS:
            raise InvalidRequestError(f"an LLM has the function text-generation, not {function!r}")
        refuse(additional_info, _ELSEWHERE, "to an LLM")
        if (ledger is not None or budget is not None) and (url is not None or client is not None):
            raise InvalidRequestError("ledger and budget belong to the client that is given, or to the service")
        self.id, self.name, self.description = id, name or id, description
        self.api_key, self.supplier, self.version = api_key, supplier, version or "1.0"
        self.function, self.is_subscribed = function, is_subscribed
        self.cost = self.pricing = cost
        self.temperature = TEMPERATURE if temperature is None else temperature
        self.url, self.backend_url = url, backend_url or url
        self.additional_info = additional_info
        self._store = store
        self._usual = {} if temperature is None else {"temperature": temperature}
        options = {"ledger": ledger, "budget": budget, "store": store if budget is not None else None}
        set_ = {key: value for key, value in options.items() if value is not None}
        defaults = {"temperature": TEMPERATURE, "max_tokens": MAX_TOKENS}
        self._target: targets.Target
        if url is not None:
            self._target = targets.ServiceTarget(Remote(id, url, api_key or "", defaults))
        elif client is not None:
            self._target = targets.ModelTarget.of_client(id, client)
        else:
            self._target = targets.ModelTarget.here(id, api_key, set_, defaults, backend)

    def __repr__(self) -> str:
        """Return the settings without the key."""
        return f"LLM(id={self.id!r}, name={self.name!r}{f', url={self.url!r}' if self.url else ''})"

    # -- running --------------------------------------------------------------------------------------------------

    def run(
        self,
        data: str | Mapping[str, Any],
        context: str | None = None,
        prompt: str | None = None,
        history: Sequence[Mapping[str, Any]] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        name: str = _LABEL,
        timeout: float = TIMEOUT_S,
        parameters: Mapping[str, Any] | None = None,
        wait_time: float = WAIT_S,
    ) -> ModelResponse:
        """Return the answer, or a response that says why there is none.

        Keyword arguments win over *parameters*, these over a dict in *data*, and all over the preset and the
        constructor. Neither dict is changed.

        Args:
            data: the prompt, sent as it is; or a dict with the prompt under "data" and other arguments.
            context: the system message.
            prompt: a text on the line above the data.
            history: OpenAI-style messages before it.
            temperature: of the sampling.
            max_tokens: of the answer; 128 if the id is a LiteLLM model string or a service's, and nothing else sets it.
                `truncated` says whether the answer was cut there.
            top_p: of the sampling; sent if given.
            name: a label; a tag in the ledger.
            timeout: seconds for all of it.
            parameters: further parameters for the model.
            wait_time: seconds between polls of a remote service, growing by a tenth each time.

        Raises:
            InvalidRequestError: the data is neither text nor a dict with "data".
        """
        saying: PromptOptions = {"context": context, "prompt": prompt, "history": history, "parameters": parameters}
        saying |= {"temperature": temperature, "max_tokens": max_tokens, "top_p": top_p}
        prepared, _, _ = self._split(data, saying)
        return result(self._within(prepared, name, timeout, wait_time))

    async def arun(
        self, data: str | Mapping[str, Any], *, wait_time: float = WAIT_S, **saying: Unpack[PromptOptions]
    ) -> ModelResponse:
        """Async version of `run`: same arguments."""
        prepared, name, timeout = self._split(data, saying)
        return await self._within(prepared, name, timeout, wait_time)

    def run_stream(self, data: str | Mapping[str, Any], **saying: Unpack[PromptOptions]) -> targets.RunStream:
        """Return the answer in chunks; the last one has the status SUCCESS or FAILED. Arguments as for `run`.

        *timeout* is the longest silence. `response` is available after the end.
        """
        prepared, name, timeout = self._split(data, saying)
        return targets.RunStream(self._target.stream(prepared, _tags(name), timeout))

    def arun_stream(self, data: str | Mapping[str, Any], **saying: Unpack[PromptOptions]) -> targets.AsyncRunStream:
        """Return the answer in chunks, for `async for`. Arguments as for `run_stream`."""
        prepared, name, timeout = self._split(data, saying)
        return targets.AsyncRunStream(self._target.astream(prepared, _tags(name), timeout))

    # -- background runs ------------------------------------------------------------------------------------------

    def run_async(
        self,
        data: str | Mapping[str, Any],
        context: str | None = None,
        prompt: str | None = None,
        history: Sequence[Mapping[str, Any]] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        top_p: float | None = None,
        name: str = _LABEL,
        parameters: Mapping[str, Any] | None = None,
    ) -> ModelResponse:
        """Start a run and return at once: IN_PROGRESS, with the `url` for `poll`. Arguments as for `run`.

        The run goes on in this process, and ends with it; every process that shares the store can poll it. A remote
        service runs by itself.
        """
        saying: PromptOptions = {"context": context, "prompt": prompt, "history": history, "parameters": parameters}
        saying |= {"temperature": temperature, "max_tokens": max_tokens, "top_p": top_p}
        prepared, _, _ = self._split(data, saying)
        if isinstance(self._target, targets.ServiceTarget):
            return result(as_response(self._target.submit(prepared)))
        try:
            url = Runs(self._store).start(
                lambda: self._within(prepared, name, None, WAIT_S), model=self.id, name="" if name == _LABEL else name
            )
        except LlmkitError as error:
            return of_error(error, 0.0)
        return ModelResponse(status=ResponseStatus.IN_PROGRESS, completed=False, url=url)

    async def arun_async(self, data: str | Mapping[str, Any], **arguments: Any) -> ModelResponse:
        """Async version of `run_async`: same arguments."""
        return await asyncio.to_thread(lambda: self.run_async(data, **arguments))

    def poll(self, url: str, name: str = _LABEL) -> ModelResponse:
        """Return the state of a run; one that is unknown, or whose process is gone, has failed."""
        del name
        if str(url).startswith(SCHEME):
            return locally(lambda: Runs(self._store).poll(url))
        return result(as_response(self._polled(url)))

    async def apoll(self, url: str, name: str = _LABEL) -> ModelResponse:
        """Async version of `poll`."""
        return await asyncio.to_thread(self.poll, url, name)

    def sync_poll(
        self, url: str, name: str = _LABEL, wait_time: float = WAIT_S, timeout: float = TIMEOUT_S
    ) -> ModelResponse:
        """Return the outcome of a run as soon as it has ended.

        If that takes more than *timeout* seconds, the response is FAILED with "timeout" and not completed: the run goes
        on, and `url` can be polled again.
        """
        del name
        return result(self._until_end(url, wait_time, timeout))

    async def async_poll(
        self,
        url: str,
        name: str = _LABEL,
        wait_time: float = WAIT_S,
        timeout: float = TIMEOUT_S,
    ) -> ModelResponse:
        """Async version of `sync_poll`: same arguments."""
        del name
        return await self._until_end(url, wait_time, timeout)

    def cancel(self, url: str) -> ModelResponse:
        """Cancel a run, in whatever process it goes on; the request to the provider is dropped."""
        if not str(url).startswith(SCHEME):
            return failed("validation", f"only runs of a store can be cancelled, not {url!r}", url=url)
        return locally(lambda: Runs(self._store).cancel(url))

    # -- the catalogue --------------------------------------------------------------------------------------------

    @classmethod
    def get(cls, id: str, **settings: Any) -> LLM:  # noqa: A002 - its name everywhere
        """Return a model by its id; *settings* are arguments of the constructor.

        Raises:
            UnknownPresetError: it is neither a preset's name nor a LiteLLM model string.
            ProviderError: the service at `url` does not know it, or cannot be reached.
        """
        known = catalogue.find(id, settings.get("backend_url") or settings.get("url"), settings.get("api_key"))
        return cls(**{"id": id, **known, **settings})

    @classmethod
    def list(cls, query: str = "", *, page_number: int = 0, page_size: int = 20, **settings: Any) -> dict[str, Any]:
        """Return models: `results` (LLMs), `total`, `page_number` and `page_total`.

        Without `url` these are the presets with *query* in their name, model or description.

        Raises:
            ProviderError: the service cannot be reached.
        """
        at = settings.get("backend_url") or settings.get("url")
        models, total = catalogue.search(query, page_number, page_size, at, settings.get("api_key"))
        results = [cls(**{**model, **settings}) for model in models]
        pages = -(-total // page_size)
        return {"results": results, "page_total": pages, "page_number": page_number, "total": total}

    # -- inside ---------------------------------------------------------------------------------------------------

    def _split(self, data: Any, saying: PromptOptions) -> tuple[Prompt, str, float]:
        """Return the prompt, the label, and the timeout of a run."""
        keywords: dict[str, Any] = dict(saying)
        name, timeout = keywords.pop("name", _LABEL), keywords.pop("timeout", TIMEOUT_S)
        parameters = keywords.pop("parameters", None)
        if wrong := keywords.keys() - PromptOptions.__annotations__.keys():
            raise TypeError(f"unexpected keyword arguments: {', '.join(sorted(wrong))}")
        return prompt_from(data, keywords, parameters, self._usual), name, timeout

    async def _within(self, prepared: Prompt, name: str, timeout_s: float | None, wait_s: float) -> ModelResponse:
        """Return the answer, or a response that says why there is none in time."""
        began, state = time.monotonic(), PollState(wait_s=wait_s)
        try:
            return await asyncio.wait_for(self._target.answer(prepared, _tags(name), timeout_s, state), timeout_s)
        except asyncio.TimeoutError as error:
            if isinstance(error, LlmkitError):
                return of_error(error, time.monotonic() - began, url=state.url)
            return late(timeout_s or 0.0, began, state.url)
        except Exception as error:  # noqa: BLE001 - every failure is a response
            return of_error(error, time.monotonic() - began, url=state.url)

    async def _polled(self, url: str) -> ModelResponse:
        if isinstance(self._target, targets.ServiceTarget) and isinstance(url, str):
            return await self._target.poll(url)
        return failed("not_found", f"{url!r} is no run of this model", url=url)

    async def _until_end(self, url: str, wait_s: float, timeout_s: float) -> ModelResponse:
        began, wait_s = time.monotonic(), max(0.02, wait_s)
        while True:
            left_s = timeout_s - (time.monotonic() - began)
            if left_s <= 0:
                return late(timeout_s, began, url)
            try:
                response = await asyncio.wait_for(self._poll_once(url), left_s)
            except asyncio.TimeoutError:
                return late(timeout_s, began, url)
            if response.completed:
                return response
            await asyncio.sleep(max(0.0, min(wait_s, timeout_s - (time.monotonic() - began))))
            wait_s = min(60.0, wait_s * 1.1)

    async def _poll_once(self, url: str) -> ModelResponse:
        if str(url).startswith(SCHEME):
            return await asyncio.to_thread(locally, lambda: Runs(self._store).poll(url))
        return await as_response(self._polled(url))


def _tags(name: str) -> tuple[str, ...]:
    return () if name == _LABEL else (name,)
