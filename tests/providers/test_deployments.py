"""Deployments on the wire: what each provider is sent, who covers for whom, sound, pictures and vectors."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from email import message_from_bytes
from itertools import product

import pytest
from server import ANSWER, Answer, Drop, ScriptedServer, Status

import llmkit
from llmkit import Deployment, MultiAIClient
from llmkit.errors import AuthenticationError, ConfigError, InvalidRequestError, ProviderError

KEY = "sk-local-0123456789"
MESSAGES = [{"role": "user", "content": "Raconte moi une blague."}]
SAID = [{"role": "system", "content": "Sois bref."}, *MESSAGES]
PARAMS = {"temperature": 0.5, "max_tokens": 20}
OPTIONS = {"system": "Sois bref.", **PARAMS}
TEXT = [{"text": "Raconte moi une blague."}]
GEMINI = {
    "system_instruction": {"parts": [{"text": "Sois bref."}]},
    "contents": [{"role": "user", "parts": TEXT}],
    "generationConfig": {"temperature": 0.5, "max_output_tokens": 20},
}
CLAUDE = {
    "model": "claude-haiku-4-5",
    "system": [{"type": "text", "text": "Sois bref."}],
    "messages": [{"role": "user", "content": [{"type": "text", **TEXT[0]}]}],
    **PARAMS,
}
BEARER = "authorization"
NOVA = "amazon.nova-lite-v1:0"
LLAMA = "llama-3.3-70b-instruct"
QWEN = "qwen3-235b-a22b-instruct-2507"
SMALL = "mistral-small-3.2-24b-instruct-2506"


def like_openai(name):
    return {"model": name, "messages": SAID, **PARAMS}


PROVIDERS = {  # name, path of the endpoint, path of the request, header and variable of the key, body
    "azure": (
        "gpt-4o-2024-05-13", "", "/openai/deployments/gpt-4o-2024-05-13/chat/completions?api-version=2023-05-15",
        "api-key", "AZURE_API_KEY", {"messages": SAID, **PARAMS},
    ),
    "openai": ("gpt-4o", "/v1", "/v1/chat/completions", BEARER, "OPENAI_API_KEY", like_openai("gpt-4o")),
    "scaleway": (LLAMA, "/p/v1", "/p/v1/chat/completions", BEARER, "SCW_SECRET_KEY", like_openai(LLAMA)),
    "mistral": (SMALL, "/v1", "/v1/chat/completions", BEARER, "MISTRAL_API_KEY", like_openai(SMALL)),
    "openrouter": (LLAMA, "/api/v1", "/api/v1/chat/completions", BEARER, "OPENROUTER_API_KEY", like_openai(LLAMA)),
    "anthropic": ("claude-haiku-4-5", "", "/v1/messages", "x-api-key", "ANTHROPIC_API_KEY", CLAUDE),
    "gemini": (
        "gemini-2.5-flash", "/v1beta", "/v1beta/models/gemini-2.5-flash:generateContent",
        "x-goog-api-key", "GEMINI_API_KEY", GEMINI,
    ),
    "hyperclova-x": ("HCX-005", "/v1", "/v1/chat/completions", BEARER, "", like_openai("HCX-005")),
}  # fmt: skip


def places(secret, sent):
    """Return where in a request the secret stands."""
    parts = {**sent.headers, "path": sent.path, "body": json.dumps(sent.body, default=repr)}
    return [name for name, text in parts.items() if secret in text]


def check_answer(answer, name):
    assert (answer.text, answer.name) == (ANSWER, name)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (11, 5, 16)


# -- what each provider is sent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_gets_its_path_its_key_and_the_body(call, server, provider):
    name, base, path, header, _, body = PROVIDERS[provider]
    client = MultiAIClient({"logical": Deployment("logical", provider, name, KEY, server.url + base)})

    answer = call(client, "invoke", MESSAGES, "logical", **OPTIONS)

    check_answer(answer, "logical")
    (sent,) = server.requests
    assert sent.path == path
    assert sent.headers[header] == (f"Bearer {KEY}" if header == BEARER else KEY)
    assert places(KEY, sent) == [header]
    assert {field: sent.body.get(field) for field in body} == body


@pytest.mark.parametrize("provider", [name for name, row in PROVIDERS.items() if row[4]])
def test_an_empty_key_is_the_providers_variable(call, server, monkeypatch, provider):
    name, base, _, header, variable, _ = PROVIDERS[provider]
    monkeypatch.setenv(variable, KEY)
    client = MultiAIClient({"logical": Deployment("logical", provider, name, endpoint=server.url + base)})

    call(client, "invoke", MESSAGES, "logical")

    assert KEY in server.requests[0].headers[header]


@pytest.mark.parametrize("routes", ["on", "off"])
@pytest.mark.parametrize("method", [("invoke", MESSAGES), ("embed", ["hi"])], ids=lambda method: method[0])
@pytest.mark.parametrize(
    "provider", ["hyperclova-x", "scaleway", "openrouter", "mistral", "sambanova", "xinference", "nscale"]
)
def test_the_key_of_openai_is_sent_to_nobody_else(call, server, monkeypatch, provider, method, routes):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("LLMKIT_ROUTES", routes)
    client = MultiAIClient({"logical": Deployment("logical", provider, "a-model", endpoint=server.url)})

    with pytest.raises(AuthenticationError):
        call(client, *method, "logical")

    assert server.requests == []


def test_the_key_of_openai_is_not_sent_where_litellms_own_client_would(call, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    client = MultiAIClient({"logical": Deployment("logical", "azure_ai", "a-model", endpoint=server.url)})

    with pytest.raises(AuthenticationError, match="AZURE_AI_API_KEY"):
        call(client, "embed", ["hi"], "logical")

    assert server.requests == []


def test_bedrock_is_signed_with_the_key_for_the_region(call, server):
    keys = {"project_id": "AKIALOCAL", "api_key": KEY}
    deployment = Deployment("nova", "aws-bedrock", NOVA, endpoint=server.url, region="eu-west-3", **keys)

    answer = call(MultiAIClient({"nova": deployment}), "invoke", MESSAGES, "nova", **OPTIONS)

    check_answer(answer, "nova")
    (sent,) = server.requests
    assert sent.path == "/model/amazon.nova-lite-v1%3A0/converse"
    signed = r"AWS4-HMAC-SHA256 Credential=AKIALOCAL/\d{8}/eu-west-3/bedrock/aws4_request, .*Signature=[0-9a-f]{64}"
    assert re.fullmatch(signed, sent.headers[BEARER])
    assert places("AKIALOCAL", sent) == [BEARER]
    assert places(KEY, sent) == []
    assert sent.body == {
        "messages": [{"role": "user", "content": TEXT}],
        "system": [{"text": "Sois bref."}],
        "inferenceConfig": {"temperature": 0.5, "maxTokens": 20},
    }


def test_bedrock_takes_an_api_key_alone(call, server):
    deployment = Deployment("nova", "aws-bedrock", NOVA, KEY, server.url, region="eu-west-3")

    call(MultiAIClient({"nova": deployment}), "invoke", MESSAGES, "nova")

    assert server.requests[0].headers[BEARER] == f"Bearer {KEY}"
    assert places(KEY, server.requests[0]) == [BEARER]


def vertex(**settings):
    place = {"project_id": "my-project", "region": "europe-west1"}
    return Deployment("flash", "gcp-vertexai", "gemini-2.5-flash", **place, **settings)


def test_vertex_is_asked_with_a_token_of_google(call, server):
    pytest.importorskip("google.auth", reason="google-auth is not installed")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(65537, 2048)
    form = serialization.PrivateFormat.PKCS8
    pem = private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    account = {"type": "service_account", "client_email": "a@my-project.iam", "private_key": pem}
    credentials = json.dumps({**account, "token_uri": f"{server.url}/token"})
    client = MultiAIClient({"flash": vertex(endpoint=server.url, vertex_credentials=credentials)})

    answer = call(client, "invoke", MESSAGES, "flash", **OPTIONS)

    check_answer(answer, "flash")
    token, sent = server.requests
    assert token.path == "/token"
    place = "/v1/projects/my-project/locations/europe-west1/publishers/google/models"
    assert sent.path == f"{place}/gemini-2.5-flash:generateContent"
    assert sent.headers[BEARER] == "Bearer a-token-of-google"
    assert {field: sent.body.get(field) for field in GEMINI} == GEMINI


def test_vertex_without_googles_packages_says_what_to_install(call, server, monkeypatch):
    monkeypatch.setitem(sys.modules, "google", None)  # as where it is not installed
    client = MultiAIClient({"flash": vertex(endpoint=server.url)})

    with pytest.raises(ProviderError, match=r"litellm\[google\]"):
        call(client, "invoke", MESSAGES, "flash")

    assert server.requests == []


def test_vertex_is_told_project_and_region():
    request = vertex().request(params={"temperature": 0.5}, timeout_s=1.0)

    assert request.model == "vertex_ai/gemini-2.5-flash"
    assert request.params == {"vertex_project": "my-project", "vertex_location": "europe-west1", "temperature": 0.5}


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({"provider": "scaleway", "project_id": "p"}, "https://api.scaleway.ai/v1/p"),
        ({"provider": "scaleway", "project_id": "p", "scoped": True}, "https://api.scaleway.ai/p/v1"),
        ({"provider": "scaleway", "project_id": "p", "endpoint": "https://mine/v1"}, "https://mine/v1"),
        ({"provider": "hyperclova-x"}, "https://clovastudio.stream.ntruss.com/v1/openai"),
        ({"provider": "openai"}, None),
    ],
)
def test_the_address_follows_from_the_fields(fields, address):
    assert Deployment("a-model", **fields).base_url == address


# -- fields, keys, settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "provider", "fields", "complaint"),
    [
        ("gpt-4o", "azure", {"deployment_name": "d"}, r"'gpt-4o' \(azure\).*endpoint"),
        ("gpt-4o", "azure", {"endpoint": "https://x"}, r"'gpt-4o' \(azure\).*deployment_name"),
        ("llama", "scaleway", {}, r"'llama' \(scaleway\).*endpoint.*project_id"),
        ("", "openai", {"deployment_name": "d"}, r"'' \(openai\).*model is missing"),
        ("gpt-4o", "", {}, r"'gpt-4o'.*provider is missing"),
    ],
)
def test_a_missing_field_is_named_with_its_deployment(model, provider, fields, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        Deployment(model, provider, api_key=KEY, **fields)

    assert KEY not in str(caught.value)


@pytest.mark.parametrize("provider", ["azure", "openai", "mistral", "anthropic", "gemini", "aws-bedrock"])
def test_the_key_is_in_no_repr_and_in_no_error(call, server, provider):
    server.script = [Status(401, body={"error": {"message": f"the key {KEY} is wrong", "type": "auth"}})]
    name = NOVA if provider == "aws-bedrock" else "gpt-4o"
    deployment = Deployment("logical", provider, name, KEY, server.url, project_id="AKIALOCAL", region="eu-west-3")

    with pytest.raises(AuthenticationError) as caught:
        call(MultiAIClient({"logical": deployment}), "invoke", MESSAGES, "logical")

    assert len(server.requests) == 1
    assert KEY not in repr(deployment)
    assert KEY not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize("provider", ["openai", "azure", "mistral", "anthropic"])
def test_settings_of_litellm_arrive(call, server, provider):
    settings = {"extra_headers": {"x-team": "blue"}, **({"organization": "org-1"} if provider == "openai" else {})}
    client = MultiAIClient({"logical": Deployment("logical", provider, "gpt-4o", KEY, server.url, **settings)})

    call(client, "invoke", MESSAGES, "logical")

    assert server.requests[0].headers["x-team"] == "blue"
    assert server.requests[0].headers.get("openai-organization") == settings.get("organization")


def test_a_copy_with_a_change_keeps_the_settings():
    assert replace(Deployment("gpt-4o", "openai", user="me"), region="eu").settings == {"user": "me"}


@pytest.mark.parametrize("name", ["api_base", "base_url"])
def test_the_address_is_taken_by_its_other_names(call, server, name):
    deployment = Deployment("logical", "openai", "gpt-4o", KEY, **{name: server.url})

    call(MultiAIClient({"logical": deployment}), "invoke", MESSAGES, "logical")

    assert (deployment.endpoint, len(server.requests)) == (server.url, 1)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"endpoint": "http://a", "api_base": "http://b"}, "given twice"),
        ({"endpont": "http://a"}, "did you mean 'endpoint'"),
        ({"deployment_nam": "x"}, "did you mean 'deployment_name'"),
        ({"apikey": "k"}, "did you mean 'api_key'"),
    ],
)
def test_an_address_or_a_key_by_a_wrong_name_is_refused(fields, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Deployment("gpt-4o", "openai", **fields)


@pytest.mark.parametrize(("method", "first"), [("invoke", MESSAGES), ("speak", "hi"), ("embed", ["hi"])])
def test_what_cannot_be_sent_is_refused_by_its_name(call, server, method, first):
    client = MultiAIClient({"logical": Deployment("logical", "openai", "gpt-4o", KEY, server.url)})

    with pytest.raises(InvalidRequestError, match="user"):
        call(client, method, first, "logical", user=object())

    assert server.requests == []


@pytest.mark.parametrize("method", ["invoke", "invoke_to_str", "stream"])
@pytest.mark.parametrize(
    ("model", "name", "kind"),
    [(f"scaleway/{QWEN}", "", "json_schema"), ("qwen", QWEN, "json_schema"), ("small", SMALL, "json_object")],
)
def test_only_scaleways_qwen_is_given_a_schema_for_json_object(call, read, server, method, model, name, kind):
    client = MultiAIClient({model: Deployment(model, "scaleway", name, KEY, server.url)})
    wanted = {"type": "json_object"}

    (read if method == "stream" else call)(client, method, MESSAGES, model, response_format=wanted)

    sent = server.requests[0].body["response_format"]
    assert sent["type"] == kind
    assert kind == "json_object" or sent["json_schema"]["schema"]["type"] == "object"
    assert wanted == {"type": "json_object"}


# -- several deployments of one model ----------------------------------------------------------------------------------


@pytest.fixture
def pair(server):
    """Two providers."""
    with ScriptedServer() as second:
        yield server, second


def both(servers, name="gpt-4o"):
    return [Deployment(name, "openai", "", KEY, server.url) for server in servers]


def test_deployments_share_the_load_in_turn(call, pair):
    client = MultiAIClient({"gpt-4o": both(pair)})

    for _ in range(6):
        call(client, "invoke", MESSAGES, "gpt-4o")

    assert [len(server.requests) for server in pair] == [3, 3]


def test_two_models_asked_alternately_share_their_loads_too(call, pair):
    client = MultiAIClient({"one": both(pair, "one"), "two": both(pair, "two")})

    for _ in range(4):
        call(client, "invoke", MESSAGES, "one")
        call(client, "invoke", MESSAGES, "two")

    asked = [sorted(sent.body["model"] for sent in server.requests) for server in pair]
    assert asked == [["one", "one", "two", "two"]] * 2


@pytest.mark.parametrize("fault", [Status(500), Status(429), Drop(), "refused"], ids=str)
def test_a_deployment_covers_for_another(call, pair, fault):
    deployments = both(pair)
    if fault == "refused":
        deployments[0] = Deployment("gpt-4o", "openai", "", KEY, "http://127.0.0.1:9")
    else:
        pair[0].script = [fault] * 9
    charges = []
    client = MultiAIClient({"gpt-4o": deployments}, increment_usage=lambda price, model: charges.append(model))

    assert call(client, "invoke_to_str", MESSAGES, "gpt-4o") == ANSWER

    assert [len(server.requests) for server in pair] == [int(fault != "refused"), 1]
    assert charges == ["gpt-4o"]
    assert len(client.usages) == 1


# -- sound, pictures, vectors ------------------------------------------------------------------------------------------

AUDIO = b"RIFF\x24\x00\x00\x00WAVEfmt "


def fields(sent):
    """Return the fields of a form."""
    form = message_from_bytes(f"content-type: {sent.headers['content-type']}\r\n\r\n".encode() + sent.body)
    return {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True).strip(b"\r\n")
        for part in form.get_payload()
    }


@pytest.fixture(params=["path", "text", "bytes", "open file", "pair"])
def file(request, tmp_path):
    path = tmp_path / "talk.wav"
    path.write_bytes(AUDIO)
    with path.open("rb") as opened:
        forms = {"path": path, "text": str(path), "bytes": AUDIO, "open file": opened, "pair": ("talk.wav", AUDIO)}
        yield forms[request.param]


@pytest.mark.parametrize("provider", ["azure", "openai", "scaleway"])
def test_a_sound_is_sent_once(call, server, file, provider):
    client = MultiAIClient({"whisper": Deployment("whisper", provider, "its-whisper", KEY, server.url)})

    answer = call(client, "transcribe", file, "whisper", language="fr")

    assert (answer.text, answer.name) == (ANSWER, "whisper")
    (sent,) = server.requests
    assert sent.path.partition("?")[0].removeprefix("/openai/deployments/its-whisper") == "/audio/transcriptions"
    assert len(places(KEY, sent)) == 1
    form = fields(sent)
    assert form["file"] == AUDIO
    assert (form["language"], form["response_format"]) == (b"fr", b"verbose_json")


def test_a_second_try_sends_the_whole_file_again(call, server, file):
    server.script = [Status(500), Answer()]
    client = MultiAIClient({"whisper": Deployment("whisper", "azure", "its-whisper", KEY, server.url)})

    assert call(client, "transcribe", file, "whisper", tries=2, delay=0.01).text == ANSWER
    assert [fields(sent)["file"] for sent in server.requests] == [AUDIO, AUDIO]


KINDS = {"transcribe": AUDIO, "speak": "hello", "image": "a cat", "embed": ["a"]}


@pytest.mark.parametrize(("provider", "kind"), [*product(["azure", "openai"], KINDS), ("scaleway", "transcribe")])
@pytest.mark.parametrize("code", [500, 429])
def test_tries_are_http_requests_for_every_kind(call, server, provider, code, kind):
    server.script = [Status(code)] * 9
    deployments = {"whisper": Deployment("whisper", provider, "its-name", KEY, server.url)}

    for tries, requests in ((1, 1), (2, 3)):
        client = MultiAIClient(deployments, retry=llmkit.Retry(tries=tries, delay_s=0.01))
        with pytest.raises({500: llmkit.InternalServerError, 429: llmkit.RateLimitError}[code]):
            call(client, kind, KINDS[kind], "whisper")
        assert len(server.requests) == requests
        assert client.usages == []


@pytest.mark.parametrize("provider", ["scaleway", "mistral", "anthropic"])
def test_a_provider_without_pictures_is_an_error_and_no_empty_answer(call, server, provider):
    with pytest.raises(ProviderError):
        call(MultiAIClient({"p": Deployment("p", provider, "", KEY, server.url)}), "image", "a cat", "p")


def test_a_server_of_ones_own_without_an_address_is_not_looked_for_at_openai(call, server, monkeypatch):
    with pytest.raises(
        InvalidRequestError, match="hosted_vllm has no usual address: pass api_base, or set HOSTED_VLLM"
    ):
        call(llmkit, "ask", "a secret", model="hosted_vllm/mine")

    call(llmkit, "ask", "hi", model="hosted_vllm/mine", api_base=f"{server.url}/v1")
    monkeypatch.setenv("HOSTED_VLLM_API_BASE", f"{server.url}/v1")
    call(llmkit, "ask", "hi", model="hosted_vllm/mine")
    assert len(server.requests) == 2
