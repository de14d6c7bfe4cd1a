"""Summaries by a large model behind an OpenAI-compatible server (DashScope, OpenAI, vLLM, or the local one).

    asyncio.run(label(teacher, thinkings, ledger))

Bounded concurrency, a rate limit, retries with back-off. Retried: connection errors, time-outs, 408, 409, 429, 5xx,
answers that were cut off, and answers that break the schema. Never retried: 400, 401, 403, 404: asking again cannot
help. The key comes from the environment, and no message of ours contains it.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from qwenlab.core.errors import UserError
from qwenlab.core.params import Params
from qwenlab.thinkseg.ledger import Ledger
from qwenlab.thinkseg.prompt import messages, prompt_hash, response_format
from qwenlab.thinkseg.records import Thinking
from qwenlab.thinkseg.summary import parse_summary

LOCAL = "local"  # as base_url: the stage starts the rule-based server itself


class Teacher(Params):
    """A provider, and how it is asked."""

    base_url: str = Field(description='"local", or such as https://dashscope.aliyuncs.com/compatible-mode/v1')
    name: str = Field(description="model name at the provider")
    key_variable: str = Field(description="environment variable that holds the key; never the key itself")
    mode: Literal["json_schema", "json_object", "text"]
    temperature: float = Field(ge=0)
    max_tokens: int = Field(ge=1)
    workers: int = Field(ge=1, description="requests at once")
    requests_per_minute: float = Field(ge=0, description="0 for no limit")
    timeout_s: float = Field(gt=0)
    attempts: int = Field(ge=1, description="a record")
    backoff_s: float = Field(ge=0, description="first wait; it doubles, up to 30 s")
    price_in: float = Field(ge=0, description="a million prompt tokens, in USD")
    price_out: float = Field(ge=0, description="a million completion tokens, in USD")

    def cost(self, entry: dict[str, Any]) -> float:
        """Price of one paid answer in USD."""
        return (entry["tokens_in"] * self.price_in + entry["tokens_out"] * self.price_out) / 1e6


class BadAnswer(Exception):
    """An answer that was paid for and cannot be used."""


@dataclass
class Account:
    """What happened in one run."""

    asked: int = 0  # requests sent
    paid: int = 0  # answers with usage
    bad: int = 0  # of them, cut off or against the schema
    refused: int = 0  # 429, 5xx, time-outs, lost connections
    failed: int = 0  # records given up
    reason: str = ""  # of the last record given up


class RateLimit:
    """At most so many starts a minute, evenly spaced."""

    def __init__(self, per_minute: float):
        self.gap = 60 / per_minute if per_minute else 0.0
        self.next = 0.0

    async def wait(self) -> None:
        """Wait for the next start."""
        if self.gap:
            now = time.monotonic()
            start = max(now, self.next)
            self.next = start + self.gap
            await asyncio.sleep(start - now)


def read_key(teacher: Teacher) -> str:
    """The key from the environment; "local" for the server of our own.

    Raises:
        UserError: when the variable is not set.
    """
    if teacher.base_url == LOCAL:
        return LOCAL
    key = os.environ.get(teacher.key_variable, "").strip()
    if not key:
        raise UserError(
            f"The environment variable {teacher.key_variable} is not set; it holds the key for {teacher.base_url}."
        )
    return key


def without_key(text: str, key: str) -> str:
    """`text` with every occurrence of the key, or of half of it, replaced: servers like to quote it."""
    for part in (key, key[: len(key) // 2], key[len(key) // 2 :]):
        if len(part) >= 8 or part == key:
            text = text.replace(part, "***")
    return text


async def ask(client, teacher: Teacher, chat: list[dict], write: Callable[[dict[str, Any]], None]) -> None:
    """One request. `write` gets tokens and the summary, or what is wrong with it, before anything else happens.

    Raises:
        BadAnswer: when the answer was cut off or breaks the schema.
    """
    extra = {} if (form := response_format(teacher.mode)) is None else {"response_format": form}
    reply = await client.chat.completions.create(
        model=teacher.name,
        messages=chat,
        temperature=teacher.temperature,
        max_tokens=teacher.max_tokens,
        **extra,
    )
    choice, usage = reply.choices[0] if reply.choices else None, reply.usage
    entry = {
        "tokens_in": usage.prompt_tokens if usage else 0,
        "tokens_out": usage.completion_tokens if usage else 0,
        "summary": None,
        "problem": "",
    }
    if choice is None or choice.finish_reason != "stop":
        entry["problem"] = f"finish_reason is {choice.finish_reason if choice else 'missing'}"
    else:
        try:
            entry["summary"] = parse_summary(choice.message.content or "").model_dump()
        except ValueError as error:
            entry["problem"] = str(error)
    write(entry)
    if entry["problem"]:
        raise BadAnswer(entry["problem"])


async def label(
    teacher: Teacher,
    thinkings: Sequence[Thinking],
    ledger: Ledger,
    base_url: str | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Account:
    """Ask for every summary that the ledger lacks.

    Args:
        base_url: where a local server listens; the teacher's own address if not given.
        advance: called after each record, for a bar.

    Raises:
        UserError: on 400, 401, 403, 404, with what the server said, but without the key.
    """
    import openai
    from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential

    account, key, done = Account(), read_key(teacher), ledger.done()
    limit, slots = RateLimit(teacher.requests_per_minute), asyncio.Semaphore(teacher.workers)
    refused = asyncio.Event()
    hopeless = (
        openai.BadRequestError, openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError,
    )  # fmt: skip

    def again(error: BaseException) -> bool:
        return isinstance(error, BadAnswer | openai.APIError) and not isinstance(error, hopeless)

    # max_retries=0: the SDK would retry some errors by itself, unseen by the account.
    client = openai.AsyncOpenAI(
        api_key=key, base_url=base_url or teacher.base_url, timeout=teacher.timeout_s, max_retries=0
    )

    async def one(thinking: Thinking) -> None:
        chat = messages(thinking)
        prompt = prompt_hash(teacher.name, teacher.mode, teacher.temperature, chat)
        if (thinking.id, prompt) in done:
            return advance()

        def write(entry: dict[str, Any]) -> None:
            ledger.add({"id": thinking.id, "prompt": prompt, **entry})
            account.paid += 1
            account.bad += bool(entry["problem"])

        retrying = AsyncRetrying(
            stop=stop_after_attempt(teacher.attempts),
            wait=wait_exponential(multiplier=teacher.backoff_s, max=30),
            retry=retry_if_exception(again),
            reraise=True,
        )
        async with slots:
            if refused.is_set():
                return
            try:
                async for attempt in retrying:
                    with attempt:
                        await limit.wait()
                        account.asked += 1
                        try:
                            await ask(client, teacher, chat, write)
                        except openai.APIError:
                            account.refused += 1
                            raise
            except hopeless as error:
                refused.set()  # whoever waits for a slot need not find out by itself
                said = without_key(str(error), key)
                raise UserError(f"{teacher.base_url} refuses requests for {teacher.name}: {said}.") from None
            except (BadAnswer, openai.APIError) as error:
                account.failed += 1
                account.reason = without_key(f"{thinking.id}: {error}", key)
        advance()

    try:
        # A task group stops all others when one request is hopeless; what was paid is in the ledger.
        async with asyncio.TaskGroup() as group:
            for thinking in thinkings:
                group.create_task(one(thinking))
    except* UserError as errors:
        raise errors.exceptions[0] from None
    finally:
        await client.close()
    return account
