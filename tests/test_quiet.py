"""Rule 8: after a program that uses llmkit nothing stands on stderr that llmkit did not say, at exit either.

Forty small programs, every form of a call: left, cancelled, timed out, nested, forked, in threads with loops of their
own. They run with the warnings of resources and of coroutines that nobody awaited. Most of them are forked from one
process that has imported already what they need (`quiet.py`); first calls are tried in processes of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from server import Answer, Raw, ScriptedServer, Status

HEAD = """
import asyncio, os, sys, threading, time, llmkit
from llmkit import ChatModel, Deployment, LLM, MultiAIClient, presets
URL = os.environ["URL"]
kw = dict(model="openai/gpt-4o", api_base=URL + "/v1", api_key="sk-local-0123456789")
"""
PROGRAMS = {
    "ask": """
        llmkit.ask('x',**kw)
    """,
    "ask_then_run": """
        llmkit.ask('x',**kw)
        async def m():
            await llmkit.aask('y',**kw)
        asyncio.run(m())
        llmkit.ask('x',**kw)
    """,
    "aask": """
        asyncio.run(llmkit.aask('x',**kw))
    """,
    "aask_many": """
        for _ in range(5): asyncio.run(llmkit.aask('x',**kw))
    """,
    "stream": """
        print(''.join(p.content for p in llmkit.stream('x',**kw)))
    """,
    "stream_left": """
        for p in llmkit.stream('x',**kw): break
    """,
    "astream": """
        async def m():
            async for p in llmkit.astream('x',**kw): pass
        asyncio.run(m())
    """,
    "astream_left": """
        async def m():
            async for p in llmkit.astream('x',**kw): break
        asyncio.run(m())
    """,
    "astream_left2": """
        async def m():
            async with llmkit.astream('x',**kw) as s:
                async for p in s: break
        asyncio.run(m())
    """,
    "cancel": """
        async def m():
            t=asyncio.create_task(llmkit.aask('slow',**kw)); await asyncio.sleep(.3); t.cancel()
            try: await t
            except asyncio.CancelledError: pass
        asyncio.run(llmkit.aask('x',**kw))
        asyncio.run(m())
    """,
    "cancel_first": """
        async def m():
            t=asyncio.create_task(llmkit.aask('slow',**kw)); await asyncio.sleep(.3); t.cancel()
            try: await t
            except asyncio.CancelledError: pass
        asyncio.run(m())
    """,
    "wait_for": """
        async def m():
            try: await asyncio.wait_for(llmkit.aask('slow',**kw),.3)
            except asyncio.TimeoutError: pass
        asyncio.run(m())
    """,
    "wait_for_warm": """
        async def m():
            await llmkit.aask('x',**kw)
            try: await asyncio.wait_for(llmkit.aask('slow',**kw),.3)
            except asyncio.TimeoutError: pass
        asyncio.run(m())
    """,
    "timeout": """
        try: llmkit.ask('slow',timeout=.3,retry=llmkit.Retry(tries=1),**kw)
        except llmkit.Timeout: pass
    """,
    "atimeout": """
        async def m():
            try: await llmkit.aask('slow',timeout=.3,retry=llmkit.Retry(tries=1),**kw)
            except llmkit.Timeout: pass
        asyncio.run(m())
    """,
    "stream_timeout": """
        async def m():
            try:
                async for p in llmkit.astream('hang',timeout=.3,**kw): pass
            except llmkit.Timeout: pass
        asyncio.run(m())
    """,
    "threads_loops": """
        asyncio.run(llmkit.aask('w',**kw))
        def w():
            for _ in range(3): asyncio.run(llmkit.aask('x',**kw))
        ts=[threading.Thread(target=w) for _ in range(8)]
        [t.start() for t in ts]; [t.join() for t in ts]
    """,
    "threads": """
        ts=[threading.Thread(target=lambda: llmkit.ask('x',**kw)) for _ in range(8)]
        [t.start() for t in ts]; [t.join() for t in ts]
    """,
    "threads_cancel": """
        async def m():
            async for p in llmkit.astream('x',**kw): break
            try: await asyncio.wait_for(llmkit.aask('slow',**kw),.1)
            except asyncio.TimeoutError: pass
        def w():
            for _ in range(3): asyncio.run(m())
        ts=[threading.Thread(target=w) for _ in range(8)]
        [t.start() for t in ts]; [t.join() for t in ts]
    """,
    "nested": """
        async def m():
            return llmkit.ask('x',**kw)
        asyncio.run(m())
    """,
    "nested_stream": """
        async def m():
            for p in llmkit.stream('x',**kw): pass
        asyncio.run(m())
    """,
    "llm": """
        print(LLM('openai/gpt-4o',api_key='k-012345678').run('hi',parameters={'api_base':URL+'/v1'}).status)
    """,
    "llm_async": """
        print(LLM('openai/gpt-4o',api_key='k-012345678').run('hi',parameters={'api_base':URL+'/v1'}).status)
        asyncio.run(llmkit.aask('x',**kw))
    """,
    "llm_job": """
        m=LLM('openai/gpt-4o',api_key='k-012345678')
        j=m.run_async('hi',parameters={'api_base':URL+'/v1'})
        print(m.sync_poll(j.url).status)
    """,
    "loop_manual": """
        l=asyncio.new_event_loop()
        l.run_until_complete(llmkit.aask('x',**kw))
        l.run_until_complete(l.shutdown_asyncgens())
        l.close()
    """,
    "fork": """
        llmkit.ask('x',**kw)
        sys.stdout.flush()
        pid=os.fork()
        llmkit.ask('y',**kw)
        if pid: os.waitpid(pid,0)
    """,
    "fork_async": """
        asyncio.run(llmkit.aask('x',**kw))
        pid=os.fork()
        asyncio.run(llmkit.aask('y',**kw))
        if pid: os.waitpid(pid,0)
    """,
    "fork_worker": """
        LLM('openai/gpt-4o',api_key='k-012345678').run('hi',parameters={'api_base':URL+'/v1'})
        pid=os.fork()
        print(LLM('openai/gpt-4o',api_key='k-012345678').run('hi',parameters={'api_base':URL+'/v1'}).status)
        if pid: os.waitpid(pid,0)
    """,
    "mp": """
        import multiprocessing as mp
        llmkit.ask('x',**kw)
        def f(i): return llmkit.ask(str(i),**kw).text
        if __name__=='__main__':
            with mp.get_context('fork').Pool(3) as p: print(p.map(f,range(6)))
            p.join()
    """,
    "embed": """
        c=MultiAIClient({'e':Deployment('e','openai','text-embedding-3-small','sk-local-012345',URL+'/v1')})
        c.embed(['a','b'],'e')
        asyncio.run(c.aembed(['a'],'e'))
    """,
    "azure": """
        c = MultiAIClient({"gpt-4o": Deployment("gpt-4o", "azure", "gpt-4o", "sk-local-012345", URL)})
        c.invoke("hi", "gpt-4o")
        asyncio.run(c.ainvoke("hi", "gpt-4o"))
    """,
    "anthropic": """
        a=dict(model='anthropic/claude-3-5-haiku-20241022',api_base=URL,api_key='sk-local-0123456789')
        llmkit.ask('x',**a)
        asyncio.run(llmkit.aask('x',**a))
        for p in llmkit.stream('x',**a): break
        async def m():
            async for p in llmkit.astream('x',**a): break
        asyncio.run(m())
    """,
    "error": """
        try: llmkit.ask('500',retry=llmkit.Retry(tries=2,delay_s=.01),**kw)
        except llmkit.ProviderError: pass
        async def m():
            try: await llmkit.aask('500',retry=llmkit.Retry(tries=2,delay_s=.01),**kw)
            except llmkit.ProviderError: pass
        asyncio.run(m())
    """,
    "gather_cancel": """
        async def m():
            try: await asyncio.wait_for(asyncio.gather(*[llmkit.aask('slow',**kw) for _ in range(10)]),.5)
            except asyncio.TimeoutError: pass
        asyncio.run(llmkit.aask('x',**kw))
        asyncio.run(m())
    """,
    "chat": """
        c=ChatModel(presets.Preset(name='p',model='openai/gpt-4o',params={'api_base':URL+'/v1'}),store='sqlite:///c.db')
        c.add_messages([{'role':'user','content':'hi'}])
        assert not c.run(api_key='sk-012345678').error
        c.add_messages([{'role':'user','content':'hi'}])
        for piece in c.run(stream=True, api_key='sk-012345678'): break
    """,
    "kbd": """
        import signal
        signal.signal(signal.SIGALRM, signal.default_int_handler); signal.setitimer(signal.ITIMER_REAL,.8)
        try: llmkit.ask('slow',**kw); time.sleep(3)
        except KeyboardInterrupt: pass
    """,
    "sysexit": """
        import atexit
        llmkit.ask('x',**kw)
        sys.exit(0)
    """,
    "ledger": """
        llmkit.ask('x',ledger='sqlite:///l.db',**kw)
        async def m():
            await llmkit.aask('x',ledger='sqlite:///l.db',**kw)
        asyncio.run(m())
    """,
    "budget": """
        from llmkit import Budget
        llmkit.ask('x',budget=Budget(name='b',limit_usd=1),store='sqlite:///l.db',**kw)
        asyncio.run(llmkit.aask('x',budget='b',store='sqlite:///l.db',**kw))
    """,
    "tools": """
        def now(): "Tell the time."; return 'noon'
        llmkit.ask('tool',tools=[now],**kw)
        asyncio.run(llmkit.aask('tool',tools=[now],**kw))
    """,
    "schema": """
        asyncio.run(llmkit.aask('json',schema={'type':'object'},**kw))
    """,
    "malformed": """
        os.environ['LLMKIT_ROUTES']='off'
        async def m(question):
            await llmkit.aask(question,**kw)
        for question in ('a number','no list','an object'):
            for form in (lambda: llmkit.ask(question,**kw), lambda: asyncio.run(m(question))):
                try: form()
                except llmkit.ProviderError: assert question!='an object'
        for piece in llmkit.stream('an object',**kw): pass
    """,
    "raises": """
        llmkit.ask('x',**kw)
        async def m():
            s=llmkit.astream('x',**kw)
            await anext(s)
        asyncio.run(m())
    """,
}
pytestmark = pytest.mark.timeout(600)
ALONE = ("cancel_first", "wait_for", "llm", "ask")
WITH_LITELLM = (
    "anthropic",
    "embed",
    "fork_worker",
    "llm_async",
    "llm_job",
    "malformed",
    "astream_left",
    "cancel",
    "fork",
)
"""Those that import LiteLLM, and some of the others, for a program can have imported it itself."""
FLAGS = ("-W", "always::ResourceWarning", "-W", "always::RuntimeWarning")


def answer(body):
    asked = body.get("messages", [{"content": "x"}])[-1]["content"] if isinstance(body, dict) else "x"
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    odd = {"tool_calls": [{**call, "index": 0, "function": {"name": "now", "arguments": {"zone": "UTC"}}}]}
    known = {
        "slow": Answer(delay_s=1.5),
        "hang": Answer(end="hang", delay_s=1),
        "500": Status(500),
        "json": Answer("{}"),
        "tool": Answer("", message={"role": "assistant", "tool_calls": [call]}, finish_reason="tool_calls"),
        "a number": Answer(message={"role": "assistant", "content": 5}),
        "no list": Raw(b'{"choices": "abc"}'),
        "an object": Answer("", message=odd, deltas=[odd], finish_reason="tool_calls"),
    }
    return known.get(str(asked), Answer())


@pytest.fixture(scope="module")
def url():
    with ScriptedServer(*[answer] * 2000) as server:
        yield server.url


def program(name):
    return HEAD + textwrap.dedent(PROGRAMS[name])


@pytest.fixture(scope="module")
def outcomes(url, tmp_path_factory):
    """Run all programs but those of `ALONE`, each in a fork of one process; return (status, stderr) by name."""
    folder = tmp_path_factory.mktemp("quiet")
    for name in PROGRAMS.keys() - set(ALONE):
        (folder / name).mkdir()
        (folder / name / "program.py").write_text(program(name))
    runner = Path(__file__).parent / "support" / "quiet.py"
    done = subprocess.run(
        [sys.executable, *FLAGS, str(runner), str(folder), *WITH_LITELLM],
        env={**os.environ, "URL": url},
        capture_output=True,
        text=True,
        timeout=500,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", sorted(PROGRAMS.keys() - set(ALONE)))
def test_nothing_stands_on_stderr(outcomes, name):
    assert outcomes[name] == [0, ""]


@pytest.mark.parametrize("name", ALONE)
def test_nothing_stands_on_stderr_after_a_first_call(url, tmp_path, name):
    (tmp_path / "program.py").write_text(program(name))
    done = subprocess.run(
        [sys.executable, *FLAGS, "program.py"],
        env={**os.environ, "URL": url, "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
